"""The lab that these tests share, the images that are built once for all, and a Kubernetes namespace for each test."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import containers, images
from tests.lab.api import Api, wait_for
from tests.lab.builder import Builder, variables_for
from tests.lab.deployment import Deployment
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.registry import Registry
from tests.lab.settings import FIVE, NODES, from_environment


@pytest.fixture(scope="session")
def any_lab() -> Iterator[Lab]:
    """The lab of `make lab` where it is up, else one that goes away with the tests; its machines come on demand."""
    lab = Lab(from_environment())
    found = lab.is_up
    try:
        yield lab
    finally:
        if not found:
            lab.down()


@pytest.fixture(scope="session")
def lab(any_lab: Lab) -> Lab:
    """The five machines."""
    any_lab.up()
    return any_lab


@pytest.fixture(scope="session")
def laptop(any_lab: Lab) -> Machine:
    """The machine with Docker."""
    any_lab.up(["laptop"])
    machine = any_lab.machine("laptop")
    wait_for(lambda: bool(machine.ssh("docker", "version")), timeout=30, what="Docker answers on laptop")
    return machine


@pytest.fixture(scope="session")
def registry(laptop: Machine) -> Iterator[Registry]:
    """A registry on the laptop with the images that others make elsewhere."""
    with Registry(laptop, 5001) as registry:
        containers.push_all(registry, laptop.settings)
        yield registry


@pytest.fixture(scope="session")
def repository() -> str:
    """A repository that nobody pushed to before."""
    return f"posture-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def builder(
    any_lab: Lab, registry: Registry, repository: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Builder]:
    """The playbook, and the images that its first run has pushed."""
    builder = Builder(any_lab, tmp_path_factory.mktemp("builder"), variables_for(registry, repository))
    first = builder.build()
    assert first.built == ["analyzer", "offloader"]
    yield builder
    builder.clean()


@pytest.fixture(scope="session")
def recorded(lab: Lab, registry: Registry, builder: Builder) -> Iterator[dict[str, str]]:
    """The images by their digests, as the playbook recorded them; every node can pull them, and forgets them again."""
    nodes = [lab.machine(name) for name in NODES]
    registry.let_pull(nodes)
    recorded = builder.recorded
    yield recorded
    digests = "|".join(name.partition("@")[2] for name in recorded.values())
    for node in nodes:
        node.shell(
            f"ctr --namespace k8s.io images list | awk '$3 ~ /{digests}/ {{print $1}}'"
            " | xargs -r ctr --namespace k8s.io images rm"
        )


@pytest.fixture(scope="session")
def deployment(lab: Lab, recorded: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """What `up` made of the example inventory, told as fully as Ansible can; taken away with all that it ever wrote."""
    variables = {"posture_interval": 0.2, "posture_image": recorded["analyzer"].partition("@")[0]}
    deployment = Deployment(lab, tmp_path_factory.mktemp("deployment"), images=recorded, variables=variables)
    try:
        first = deployment.play("up", "-vvv")
        assert set(first.changed) == {*FIVE, "localhost"}
        secrets = deployment.secrets()
        assert secrets.keys() == {
            *(
                f"mqtt-{user}"
                for user in ("posture-analyzer-pi1", "posture-analyzer-pi2", "posture-offloader", "pi1", "pi2")
            ),
            "database",
            "fingerprint",
        }
        assert not [name for name, secret in secrets.items() if secret in first.output]
        yield deployment
    finally:
        deployment.play("down", "-e", "posture_purge=true")
        assert not any(deployment.services(name) for name in FIVE)
        assert not any((lab.machine(name).root / "var/lib/posture").exists() for name in FIVE)


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest) -> Path:
    """The cluster that POSTURE_KUBECONFIG names, which may be thrown away, else the lab's."""
    given = os.environ.get("POSTURE_KUBECONFIG")
    if given:
        return Path(given)
    lab: Lab = request.getfixturevalue("lab")
    return lab.kubeconfig


@pytest.fixture
def api(kubeconfig: Path) -> Iterator[Api]:
    """The cluster's API, as its administrator."""
    with Api(kubeconfig) as api:
        yield api


@pytest.fixture
def nodes(api: Api) -> list[str]:
    """The names of the cluster's Ready nodes."""
    return sorted(api.ready_nodes())


@pytest.fixture
def image() -> str:
    """An image with busybox in it: the one that the lab's nodes have, or a public one."""
    return "docker.io/library/busybox:stable" if os.environ.get("POSTURE_KUBECONFIG") else images.BUSYBOX


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A fresh Kubernetes namespace."""
    name = f"posture-test-{uuid.uuid4().hex[:8]}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    wait_for(lambda: api.exists(account), timeout=20, what=f"{name} has its service account")
    yield name
    api.delete(f"/api/v1/namespaces/{name}")
