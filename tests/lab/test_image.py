"""The images on a machine with Docker: built for two architectures, pushed, run; what goes wrong is one clear line."""

import json
import re
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.api import Api
from tests.lab.builder import Builder, Run, copy
from tests.lab.compose import Compose
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.pods import pod, run_pod
from tests.lab.registry import Registry
from tests.lab.tools import LabError
from tests.support.checkout import CHECKOUT
from tests.support.waiting import wait_until

AMD64, ARM64 = "linux/amd64", "linux/arm64"
_TRIES = 4  # of what has to be quick: others may be using this computer's processors
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def image(builder: Builder) -> str:
    """The analyzer's image by its digest, as the playbook recorded it."""
    return builder.recorded["analyzer"]


@pytest.fixture
def other(builder: Builder, any_lab: Lab, tmp_path: Path) -> Builder:
    """Another inventory, on another computer for all that the builder knows: what it builds is recorded elsewhere."""
    return Builder(any_lab, tmp_path, builder.variables)


# What is built


def test_one_tag_is_for_two_architectures(builder: Builder, registry: Registry, repository: str) -> None:
    for target, name in (("analyzer", repository), ("offloader", f"{repository}-offloader")):
        digest, index = registry.manifest(name, "latest")
        platforms = [f"{each['platform']['os']}/{each['platform']['architecture']}" for each in index["manifests"]]
        assert sorted(platforms) == [AMD64, ARM64]
        assert builder.recorded[target] == f"{registry.local}/{name}@{digest}"


def test_a_second_run_does_nothing_and_is_quick(builder: Builder) -> None:
    seconds = []
    for _ in range(_TRIES):
        again = builder.build()
        assert (again.built, again.changed) == ([], 0)
        seconds.append(again.seconds)
        if again.seconds < 10:
            return
    pytest.fail(f"not within 10 s: {seconds}")


def test_another_computer_sees_that_nothing_has_to_be_built(builder: Builder, other: Builder) -> None:
    assert other.build().built == []
    assert other.recorded == builder.recorded


def test_a_dry_run_tells_what_would_be_built(builder: Builder, registry: Registry, repository: str) -> None:
    before = registry.manifest(repository, "latest")
    assert builder.run("--check").changed == 0
    with _changed(builder.checkout / "common/posture_common/service.py"):
        dry = builder.run("--check")
    assert (dry.failed, dry.changed) == (0, 1)
    assert f"{repository}:latest would be built" in dry.output
    assert registry.manifest(repository, "latest") == before


def test_a_change_of_the_source_replaces_only_the_last_layers(
    builder: Builder, registry: Registry, repository: str
) -> None:
    before = registry.images(repository)
    with _changed(builder.checkout / "analyzer/posture_analyzer/cli.py"):
        assert builder.build().built == ["analyzer", "offloader"]
        after = registry.images(repository)
    assert builder.build().built == ["analyzer", "offloader"]
    assert _layers(registry.images(repository)) == _layers(before)
    for platform in (AMD64, ARM64):
        old, new = before[platform]["layers"], after[platform]["layers"]
        differing = [index for index, layer in enumerate(new) if layer["digest"] != old[index]["digest"]]
        largest = max(range(1, len(new)), key=lambda index: int(new[index]["size"]))  # the packages: 0 is the base
        assert differing
        assert min(differing) > largest
        assert sum(new[index]["size"] for index in differing) < 2_000_000


def test_another_platform_list_is_built_anew(other: Builder, registry: Registry, repository: str) -> None:
    only = {"image_targets": ["offloader"], "posture_image_tag": "some"}
    assert other.build(**only, image_platforms=[AMD64]).built == ["offloader"]
    assert other.build(**only, image_platforms=[ARM64, AMD64]).built == ["offloader"]
    assert sorted(registry.images(f"{repository}-offloader", "some")) == [AMD64, ARM64]
    assert other.build(**only, image_platforms=[AMD64, ARM64]).changed == 0


def test_building_for_arm64_runs_nothing_of_arm64(other: Builder, registry: Registry, repository: str) -> None:
    """So it needs no emulation: in this base the other architecture has no program at all."""
    base = f"{registry.local}/python:3.11-arm64-without-programs"
    other.build(image_base=base, image_targets=["analyzer"], posture_image_tag="without-programs")
    assert sorted(registry.images(repository, "without-programs")) == [AMD64, ARM64]


def test_sizes_above_the_base(image: str, builder: Builder, laptop: Machine) -> None:
    for reference, most in ((image, 480), (builder.recorded["offloader"], 120)):
        laptop.ssh("docker", "pull", "--quiet", reference, timeout=120)
        script = "du --summarize --apparent-size --block-size=1000000 --total /opt /app | tail --lines=1"
        size = int(laptop.ssh("docker", "run", "--rm", reference, "sh", "-c", script).split()[0])
        assert 20 < size < most


_FORBIDDEN = re.compile(
    r"(^|/)(\.cache|\.secrets|\.git|\.env|\.netrc|pip\.conf|\.pypirc|tests|node_modules)(/|$)"
    r"|(^|/)s?bin/(gcc|g\+\+|cc|c\+\+|clang|make|cmake|ld|as|cargo|rustc|uv|pip3?)$"
    r"|^(tmp|root|run|var/cache|var/lib/apt|source|tools|wheels)/."
    r"|\.(pem|key|whl|crt)$"
)
# Certificates to trust that a package brings along.
_ALLOWED = re.compile(r"/(certifi|pip/_vendor/certifi)/cacert\.pem$")


@pytest.mark.parametrize("target", ["analyzer", "offloader"])
def test_no_layer_holds_a_secret_a_cache_or_a_compiler(
    builder: Builder, registry: Registry, repository: str, laptop: Machine, target: str
) -> None:
    name = repository if target == "analyzer" else f"{repository}-offloader"
    base = {
        diff_id
        for each in registry.images("python", "3.11").values()
        for diff_id in _diff_ids(registry, "python", each)
    }
    own = laptop.ssh("cat", "/etc/ssl/certs/ca-certificates.crt").split("-----BEGIN CERTIFICATE-----")[-1].strip()[:200]
    seen: set[str] = set()
    for manifest in registry.images(name).values():
        with registry.blob(name, manifest["config"]["digest"]) as config:
            assert b"PASSWORD" not in config.read().upper()
        for layer, diff_id in zip(manifest["layers"], _diff_ids(registry, name, manifest), strict=True):
            if diff_id in base or layer["digest"] in seen:
                continue
            seen.add(layer["digest"])
            with (
                registry.blob(name, layer["digest"]) as packed,
                tarfile.open(fileobj=packed, mode="r|gz") as archive,
            ):
                for member in archive:
                    assert not _FORBIDDEN.search(member.name) or _ALLOWED.search(member.name), member.name
                    assert not member.mode & 0o6000, f"{member.name} is setuid"
                    small = member.isfile() and member.size < 500_000 and not _ALLOWED.search(member.name)
                    if small and (content := archive.extractfile(member)):
                        text = content.read()
                        assert own.encode() not in text, f"{member.name} has the host's certificates"
                        assert b"PRIVATE KEY-----\nMII" not in text, f"{member.name} has a key"
    assert len(seen) >= 4


# How it runs


def _analyse(laptop: Machine, image: str, platform: str) -> dict[str, Any]:
    command = ("docker", "run", "--rm", f"--platform={platform}", "--volume=/root/samples:/samples:ro", image)
    answer = laptop.ssh(*command, "posture-analyzer", "image", "--json", "/samples/camera.jpg", timeout=200)
    results: list[dict[str, Any]] = json.loads(answer)
    return results[0]


@pytest.fixture(scope="module")
def samples(laptop: Machine) -> None:
    """The sample photograph on the laptop."""
    (laptop.root / "root/samples").mkdir(exist_ok=True)
    (laptop.root / "root/samples/camera.jpg").write_bytes((CHECKOUT / "samples/camera.jpg").read_bytes())


@pytest.mark.usefixtures("samples")
def test_both_architectures_measure_the_same(laptop: Machine, image: str) -> None:
    amd64, arm64 = (_analyse(laptop, image, platform) for platform in (AMD64, ARM64))
    assert amd64["posture_status"] == arm64["posture_status"] == "Bad"
    assert arm64["neck_angle"] == pytest.approx(amd64["neck_angle"], abs=1)
    assert arm64["body_angle"] == pytest.approx(amd64["body_angle"], abs=1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "10001:10001"),
        (("--user=4242:4343",), "4242:4343"),
        (("--user=4242",), "4242:0"),
        (("--user=10001:10001", "--cap-drop=ALL", "--read-only"), "10001:10001"),
        (("--cap-drop=ALL", "--cap-add=CHOWN", "--cap-add=SETUID", "--cap-add=SETGID", "--read-only"), "10001:10001"),
    ],
    ids=["nothing given", "a user and a group", "a user", "restricted", "root with what it needs"],
)
def test_it_runs_as_any_user_but_root(laptop: Machine, image: str, options: tuple[str, ...], expected: str) -> None:
    script = "touch $POSTURE_IMAGES_DIR/kept && echo $(id -u):$(id -g)"
    assert laptop.ssh("docker", "run", "--rm", *options, image, "sh", "-c", script).strip() == expected


def test_root_without_the_right_to_leave_it_is_refused(laptop: Machine, image: str) -> None:
    with pytest.raises(
        LabError, match=r"started as root without the right to become user 10001.*add --user 10001:10001"
    ):
        laptop.ssh("docker", "run", "--rm", "--cap-drop=ALL", image, "check")


@pytest.mark.parametrize("owner", [None, 0, 1000])
def test_pictures_stay_where_the_labs_command_puts_them(laptop: Machine, image: str, owner: int | None) -> None:
    """None: there is no such directory yet, and Docker makes one as root."""
    pictures = laptop.root / f"root/analyzed_images-{owner}"
    if owner is not None:
        (pictures / "analyzed_images_from_pi1").mkdir(parents=True)  # an earlier program made it as root
        laptop.ssh("chown", f"{owner}:{owner}", f"/root/{pictures.name}")
    command = ("docker", "run", "--rm", f"--volume=/root/{pictures.name}:/app/analyzed_images", image, "sh", "-c")
    laptop.ssh(
        *command,
        "mkdir -p analyzed_images/analyzed_images_from_pi1 && touch analyzed_images/analyzed_images_from_pi1/a.jpg",
    )
    kept = laptop.ssh("stat", "--format=%u", f"/root/{pictures.name}/analyzed_images_from_pi1/a.jpg")
    assert int(kept) == (owner or 10001)
    laptop.ssh("rm", "-r", f"/root/{pictures.name}")


def test_the_offloaders_image_says_how_it_is(laptop: Machine, builder: Builder) -> None:
    """A cluster that does not answer is no reason to start it anew: it is healthy, and says what it misses."""
    cluster = {"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "none", "context": {"cluster": "none", "user": "none"}}
    user = {"name": "none", "user": {"token": "none"}}
    kubeconfig = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "none"}
    laptop.write("root/kubeconfig", json.dumps(kubeconfig), mode=0o644)
    settings = {
        "KUBECONFIG": "/kubeconfig",
        "POSTURE_STREAMS": "pi1",
        "POSTURE_PROMETHEUS_URL": "http://127.0.0.1:1",
    }
    options = ["--volume=/root/kubeconfig:/kubeconfig:ro", *(f"--env={name}={text}" for name, text in settings.items())]
    restricted = ("--user=10001:10001", "--cap-drop=ALL", "--read-only")
    image = builder.recorded["offloader"]
    laptop.ssh("docker", "run", "--detach", "--name=offloader", *restricted, *options, image, timeout=120)
    try:
        state = ("docker", "inspect", "--format={{.State.Health.Status}}", "offloader")
        wait_until(lambda: laptop.ssh(*state) == "healthy\n", timeout=40, describe="it is healthy", pause=0.3)
        assert "the API server does not answer" in laptop.shell("docker logs offloader 2>&1")
    finally:
        laptop.ssh("docker", "rm", "--force", "offloader")


# With broker and database: docker/compose.yml


@pytest.fixture(scope="module")
def compose(builder: Builder, laptop: Machine, registry: Registry) -> Iterator[Compose]:
    """Broker, database and analyzer as `docker compose up` brings them up."""
    compose = Compose(laptop, registry, builder.checkout)
    try:
        compose.run("up --detach --wait --wait-timeout 120 --quiet-pull", timeout=300)
        yield compose
    finally:
        compose.remove()


def test_compose_brings_up_what_a_developer_needs(compose: Compose) -> None:
    listed = [json.loads(line) for line in compose.run("ps --format json").splitlines()]
    assert {each["Service"]: each["Health"] for each in listed} == dict.fromkeys(
        ("broker", "database", "analyzer"), "healthy"
    )
    compose.publish("images/pi1", (CHECKOUT / "samples/camera.jpg").read_bytes())
    wait_until(lambda: len(compose.rows()) == 1, timeout=20, describe="the image has its row", pause=0.2)
    row = compose.rows()[0]
    assert (row["pi_id"], row["posture_status"], row["processed_by"]) == ("pi1", "Bad", "compose")
    pictures = compose.laptop.root / "root/developer/build/analyzed_images/analyzed_images_from_pi1"
    assert [file.suffix for file in pictures.iterdir()] == [".jpg"]


def test_compose_builds_where_no_certificates_are_given(compose: Compose) -> None:
    """As on most machines; here the layers are there already, so that nothing has to be fetched."""
    compose.laptop.shell(f"cd {compose.directory} && docker compose -f docker/compose.yml build --quiet analyzer")


def test_it_is_ready_within_four_seconds_restricted_as_in_a_job(compose: Compose, laptop: Machine, image: str) -> None:
    seconds: list[float] = []
    while len(seconds) < _TRIES and min(seconds, default=4) >= 4:
        with compose.analyzer(image) as took:
            seconds.append(took)
            processes = "pgrep --full --newest 'posture-analyzer$'"
            status = laptop.shell(f"grep -E '^(Uid|Gid|CapEff|NoNewPrivs):' /proc/$({processes})/status")
        assert [line.split()[1] for line in status.splitlines()] == ["10001", "10001", "0000000000000000", "1"]
    assert min(seconds) < 4, seconds


# As a pod


@pytest.fixture
def servers(laptop: Machine, registry: Registry, builder: Builder) -> Iterator[dict[str, str]]:
    """Broker and database on the laptop's address; yields the settings of an analyzer that uses them."""
    files = "root/servers"
    (laptop.root / files).mkdir()
    copy(builder.checkout / "docker/mosquitto.conf", laptop.root / files / "mosquitto.conf")
    copy(builder.checkout / "roles/database/files/migrations", laptop.root / files / "migrations")
    mounts = {
        "broker": [f"/{files}/mosquitto.conf:/mosquitto/config/mosquitto.conf:ro", "/mosquitto/data"],
        "database": [f"/{files}/migrations:/docker-entrypoint-initdb.d:ro", "/var/lib/postgresql/data"],
    }
    database = ["--env=POSTGRES_USER=posture", "--env=POSTGRES_PASSWORD=posture", "--env=POSTGRES_DB=posture"]
    try:
        for name, port, environment in (("broker", 21883, []), ("database", 25432, database)):
            inside = {"broker": 1883, "database": 5432}[name]
            volumes = [f"--volume={mount}" for mount in mounts[name]]
            options = ["--detach", f"--name=servers-{name}", f"--publish={port}:{inside}", *environment, *volumes]
            laptop.ssh("docker", "run", *options, f"{registry.local}/{name}", timeout=120)
        ready = (
            "docker exec servers-database pg_isready -h 127.0.0.1 && docker exec servers-broker mosquitto_sub -t x -E"
        )
        wait_until(lambda: _succeeds(laptop, ready), timeout=60, describe="broker and database answer", pause=0.2)
        yield {
            "POSTURE_MQTT_HOST": laptop.address,
            "POSTURE_MQTT_PORT": "21883",
            "POSTURE_DATABASE_URL": f"postgresql://posture:posture@{laptop.address}:25432/posture",
        }
    finally:
        laptop.shell(f"docker rm --force --volumes servers-broker servers-database; rm -r /{files}")


def test_it_runs_as_a_pod_that_finds_all_well(
    lab: Lab, recorded: dict[str, str], servers: dict[str, str], namespace: str
) -> None:
    """Pulled by the digest that was recorded, and restricted as Jobs are."""
    spec = pod("posture-analyzer check", node="agx", image=recorded["analyzer"])
    (container,) = spec["containers"]
    container["env"] = [{"name": key, "value": value} for key, value in {**servers, "POSTURE_STREAM": "pi1"}.items()]
    container["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    container["volumeMounts"] = [{"name": "images", "mountPath": "/app/analyzed_images"}]
    spec["volumes"] = [{"name": "images", "emptyDir": {}}]
    with Api(lab.kubeconfig) as api:
        lines = [line for line in run_pod(api, namespace, "check", spec).splitlines() if line[:4] in {"ok  ", "FAIL"}]
    assert [line[:4] for line in lines] == ["ok  "] * 4


# What is left of earlier runs


def test_containers_that_have_ended_are_removed_and_others_are_not(
    builder: Builder, laptop: Machine, image: str
) -> None:
    python = builder.variables["image_base"]
    names = {"ended": (image, "id"), "running": (image, "sleep", "600"), "foreign": (python, "true")}
    for name, (reference, *command) in names.items():
        laptop.ssh("docker", "run", "--detach", f"--name=test-{name}", reference, *command)
    wait_until(
        lambda: (
            laptop.ssh("docker", "inspect", "--format={{.State.Status}}", "test-ended", "test-foreign").split()
            == ["exited"] * 2
        ),
        timeout=20,
        describe="two containers have ended",
        pause=0.1,
    )
    try:
        assert builder.run("--check").changed == 1
        assert builder.build().changed == 1
        left = laptop.ssh("docker", "ps", "--all", "--format={{.Names}}", "--filter=name=test-").split()
        assert sorted(left) == ["test-foreign", "test-running"]
        assert builder.build().changed == 0
    finally:
        laptop.shell("docker ps --all --quiet --filter name=test- | xargs -r docker rm --force --volumes")


# What goes wrong


@contextmanager
def _changed(file: Path) -> Iterator[None]:
    original = file.read_bytes()
    file.write_bytes(original + f"# {uuid.uuid4()}\n".encode())
    try:
        yield
    finally:
        file.write_bytes(original)


def _assert_refused(run: Run, *words: str) -> None:
    assert run.failed == 1
    assert run.built == []
    for word in words:
        assert word in run.message, run.message


def test_a_registry_that_is_away(other: Builder) -> None:
    run = other.run(posture_image="127.0.0.1:5999/posture")
    _assert_refused(
        run, "could not look at 127.0.0.1:5999/posture", "connection refused", "it cannot be reached: start it"
    )


def test_a_base_that_does_not_exist(other: Builder, registry: Registry) -> None:
    run = other.run(image_base=f"{registry.local}/python:2.7")
    _assert_refused(run, "could not look at", "python:2.7", "there is no such image")


def test_a_login(other: Builder, laptop: Machine, repository: str) -> None:
    with Registry(laptop, 5003, users=f"lab:{_bcrypt(laptop)}\n") as private:
        variables = {"posture_image": f"{private.local}/{repository}", "image_targets": ["offloader"]}
        login = {"posture_registry_username": "lab", "posture_registry_password": "right"}
        try:
            _assert_refused(other.run(**variables), "refuses the login", "posture_registry_username")
            wrong = other.run(**variables, **login | {"posture_registry_password": "wr0ng-one"})
            _assert_refused(wrong, "could not log in to 127.0.0.1:5003 as 'lab'", "refuses the login")
            assert "wr0ng-one" not in wrong.output
            assert other.build(**variables, **login).built == ["offloader"]
            assert other.build(**variables, **login).changed == 0
        finally:
            laptop.shell(f"docker logout {private.local}")


def test_no_builder_of_that_name(builder: Builder) -> None:
    _assert_refused(
        builder.run(image_builder="nobody"), "has no builder 'nobody'", "docker buildx create --name nobody"
    )


def test_no_buildx(builder: Builder, laptop: Machine) -> None:
    plugin = "/usr/libexec/docker/cli-plugins/docker-buildx"
    laptop.ssh("mv", plugin, f"{plugin}.away")
    try:
        _assert_refused(builder.run(), "has no plugin buildx", "docker-buildx")
    finally:
        laptop.ssh("mv", f"{plugin}.away", plugin)


def test_no_docker(builder: Builder, laptop: Machine) -> None:
    laptop.ssh("mv", "/usr/bin/docker", "/usr/bin/docker.away")
    try:
        _assert_refused(builder.run(), "laptop has no docker: install")
    finally:
        laptop.ssh("mv", "/usr/bin/docker.away", "/usr/bin/docker")


def test_docker_is_stopped(builder: Builder, laptop: Machine) -> None:
    laptop.shell("systemctl stop docker.socket docker")
    try:
        _assert_refused(builder.run(), "Docker on laptop does not answer", "systemctl start docker")
    finally:
        laptop.shell("systemctl start docker.socket docker")


def test_docker_with_its_old_image_store(builder: Builder, laptop: Machine) -> None:
    original = (laptop.root / "etc/docker/daemon.json").read_text()
    laptop.write("etc/docker/daemon.json", "{}")
    laptop.shell("systemctl restart docker")
    try:
        refused = builder.run()
        _assert_refused(refused, "cannot make an image for several platforms", '"containerd-snapshotter": true')
    finally:
        laptop.write("etc/docker/daemon.json", original)
        laptop.shell("systemctl restart docker")


def test_a_registry_by_http_that_docker_does_not_know_of(
    other: Builder, laptop: Machine, registry: Registry, repository: str
) -> None:
    variables: dict[str, Any] = {
        "posture_image": f"{registry.address}/{repository}",
        "image_targets": ["offloader"],
    }
    _assert_refused(other.run(**variables), "speaks plain http: set posture_registry_insecure")
    variables["posture_registry_insecure"] = True
    _assert_refused(other.run(**variables), '"insecure-registries"', registry.address, "/etc/docker/daemon.json")
    daemon = laptop.root / "etc/docker/daemon.json"
    original = daemon.read_text()
    laptop.write(
        "etc/docker/daemon.json", json.dumps({**json.loads(original), "insecure-registries": [registry.address]})
    )
    try:
        laptop.shell("systemctl reload docker")
        wait_until(
            lambda: registry.address in laptop.ssh("docker", "info"),
            timeout=20,
            describe="Docker has read it",
            pause=0.2,
        )
        # The same image under another name of the registry: there is nothing to build.
        assert other.build(**variables).built == []
        assert other.build(**variables, posture_image_tag="http").built == ["offloader"]
    finally:
        # Reading a file without the list would leave Docker with the one that it has.
        laptop.write("etc/docker/daemon.json", json.dumps({**json.loads(original), "insecure-registries": []}))
        laptop.shell("systemctl reload docker")
        laptop.write("etc/docker/daemon.json", original)


def test_a_builder_with_little_room(builder: Builder) -> None:
    _assert_refused(builder.run(image_disk_mb_min=10**9), "MB are free", "docker buildx prune")


def test_a_registry_whose_disk_is_full_has_no_half_pushed_tag(other: Builder, laptop: Machine, repository: str) -> None:
    laptop.shell("mkdir -p /srv/small && mount -t tmpfs -o size=30m tmpfs /srv/small")
    try:
        with Registry(laptop, 5004, storage="/srv/small/registry") as small:
            run = other.run(posture_image=f"{small.local}/{repository}", image_targets=["analyzer"])
            _assert_refused(run, "could not build and push", "disk")
            assert small.tags(repository) == []
    finally:
        laptop.shell("umount /srv/small && rmdir /srv/small")


def test_wrong_variables(builder: Builder) -> None:
    _assert_refused(builder.run(posture_image="posture"), "posture_image 'posture' is no repository with its registry")
    _assert_refused(builder.run(posture_registry_username="lab"), "belong together")


def _bcrypt(laptop: Machine) -> str:
    """Return the password `right` as docker-registry wants it; Debian's libcrypt makes it."""
    script = (
        "import ctypes, ctypes.util; c = ctypes.CDLL('libcrypt.so.1'); c.crypt.restype = ctypes.c_char_p; "
        "print(c.crypt(b'right', b'$2y$05$abcdefghijklmnopqrstuu').decode())"
    )
    return laptop.ssh("python3", "-c", script).strip()


def _succeeds(laptop: Machine, line: str) -> bool:
    try:
        laptop.shell(line)
    except LabError:
        return False
    return True


def _diff_ids(registry: Registry, name: str, manifest: dict[str, Any]) -> list[str]:
    with registry.blob(name, manifest["config"]["digest"]) as config:
        diff_ids: list[str] = json.loads(config.read())["rootfs"]["diff_ids"]
    return diff_ids


def _layers(images: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    return {platform: [layer["digest"] for layer in image["layers"]] for platform, image in images.items()}
