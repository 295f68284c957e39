"""The lab's nodes: images are loaded, an unplugged one is noticed and comes back."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import images
from tests.lab.api import Api, wait_for
from tests.lab.lab import Lab
from tests.lab.pods import pod, run_pod
from tests.lab.settings import NODES
from tests.support.waiting import wait_until


@pytest.fixture
def api(lab: Lab) -> Iterator[Api]:
    """The lab's own cluster, whatever POSTURE_KUBECONFIG says."""
    with Api(lab.kubeconfig) as api:
        yield api


def test_all_nodes_are_ready(api: Api) -> None:
    assert api.ready_nodes() == set(NODES)


def test_an_image_is_loaded_into_one_node(lab: Lab, api: Api, namespace: str, tmp_path: Path) -> None:
    name = f"localhost/{namespace}:1"
    images.write(tmp_path / "image.tar", name, lab.machine("agx").root / "usr/bin/busybox")
    assert name in lab.load_image("agx", tmp_path / "image.tar")
    assert run_pod(api, namespace, "there", pod("echo runs", node="agx", image=name)) == "runs\n"
    listed = lab.machine("orin").ssh("ctr", "--namespace", "k8s.io", "images", "list", "--quiet")
    assert images.BUSYBOX in listed
    assert name not in listed


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("unplug", "plug"),
    [
        (lambda lab: lab.power_off("orin"), lambda lab: lab.power_on("orin")),
        (lambda lab: lab.set_link("orin", up=False), lambda lab: lab.set_link("orin", up=True)),
    ],
    ids=["power", "link"],
)
def test_an_unplugged_node_is_noticed_and_comes_back(
    lab: Lab, api: Api, namespace: str, unplug: Callable[[Lab], None], plug: Callable[[Lab], None]
) -> None:
    unplug(lab)
    try:
        wait_until(lambda: api.ready_nodes() == {"nuc", "agx"}, timeout=30, describe="orin is NotReady", pause=0.2)
    finally:
        plug(lab)
    wait_until(lambda: api.ready_nodes() == set(NODES), timeout=60, describe="orin is Ready again", pause=0.2)
    assert run_pod(api, namespace, "after", pod("echo runs", node="orin")) == "runs\n"


@pytest.mark.timeout(180)
def test_the_control_plane_survives_a_power_cut(lab: Lab, api: Api, namespace: str) -> None:
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    api.create(maps, {"metadata": {"name": "kept"}, "data": {"a": "b"}})
    lab.power_off("nuc")
    lab.power_on("nuc")
    wait_for(lambda: api.get(f"{maps}/kept")["data"] == {"a": "b"}, timeout=60, what="the API server has what it had")
    wait_until(lambda: api.ready_nodes() == set(NODES), timeout=60, describe="all nodes are Ready", pause=0.2)
    assert run_pod(api, namespace, "after", pod("echo runs", node="nuc")) == "runs\n"
