"""The module node_select on a real cluster: its labels, its cordons, its taints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.api import Api
from tests.lab.lab import Lab
from tests.lab.load import PROMETHEUS_PORT, set_load
from tests.lab.observed import agree, loads
from tests.lab.settings import CONTROL
from tests.support.modules import run_module
from tests.support.waiting import wait_until

_WORKERS = ("agx", "orin")


@pytest.fixture
def nodes(lab: Lab) -> Iterator[Api]:
    """The lab's cluster with its workers labelled, agx busier than orin; both as before afterwards."""
    with Api(lab.kubeconfig) as api:
        try:
            for name, gpu in (("agx", 30), ("orin", 10)):
                api.change(_path(name), {"metadata": {"labels": {"role": "worker"}}})
                set_load(lab.machine(name), {"gpu": gpu})
            wanted = {"agx": {"gpu": 30.0, "cpu": 5.0}, "orin": {"gpu": 10.0, "cpu": 5.0}}
            wait_until(
                lambda: agree(loads(lab, PROMETHEUS_PORT), wanted), timeout=30, describe=f"{wanted} is seen", pause=0.5
            )
            yield api
        finally:
            for name in _WORKERS:
                api.change(_path(name), {"metadata": {"labels": {"role": None}}})
                api.change(_path(name), {"spec": {"taints": None, "unschedulable": None}})
                set_load(lab.machine(name), {"gpu": 5})


@pytest.mark.timeout(180)
def test_chooses_among_the_nodes_with_the_labels_by_load_cordon_and_taint(lab: Lab, nodes: Api, tmp_path: Path) -> None:
    chosen = _select(lab, tmp_path)
    assert (chosen["node"], chosen["rejected"]) == ("orin", {})
    assert chosen["load"]["gpu"]["percent"] == 10
    assert {each["node"] for each in chosen["ranking"]} == set(_WORKERS)

    nodes.change(_path("orin"), {"spec": {"unschedulable": True}})
    chosen = _select(lab, tmp_path)
    assert chosen["node"] == "agx"
    assert chosen["rejected"]["orin"].startswith("cordoned")

    taint = {"key": "dedicated", "value": "other", "effect": "NoSchedule"}
    nodes.change(_path("agx"), {"spec": {"taints": [taint]}})
    refused = _select(lab, tmp_path)
    assert refused["failed"]
    assert refused["rejected"]["agx"].startswith("tainted")


def test_says_which_labels_no_node_has(lab: Lab, tmp_path: Path) -> None:
    refused = _select(lab, tmp_path, label_selector="role=nobody")
    assert "no node of the cluster has the labels role=nobody" in refused["msg"]


def _select(lab: Lab, tmp_path: Path, **arguments: Any) -> Any:
    given = {
        "prometheus_url": f"http://{lab.machine(CONTROL).address}:{PROMETHEUS_PORT}",
        "label_selector": "role=worker",
        "kubeconfig": str(lab.kubeconfig),
        **arguments,
    }
    return run_module(tmp_path, "node_select", given)


def _path(node: str) -> str:
    return f"/api/v1/nodes/{node}"
