"""The load that a node plays reaches the product's own eyes, through a real node_exporter and a real Prometheus."""

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.load import PROMETHEUS_PORT, set_load
from tests.lab.observed import agree, loads
from tests.lab.settings import NODES
from tests.lab.tools import LabError
from tests.support.waiting import wait_until


@pytest.fixture
def idle(lab: Lab) -> Iterator[None]:
    """Let all nodes be idle again afterwards."""
    yield
    for name in NODES:
        set_load(lab.machine(name), {"cpu": 5, "memory": 20, **({"gpu": 5} if name != "nuc" else {})})


@pytest.mark.usefixtures("idle")
def test_a_set_load_is_seen_in_prometheus(lab: Lab) -> None:
    wanted = {
        "nuc": {"cpu": 30.0, "memory": 60.0},
        "agx": {"gpu": 71.0, "cpu": 20.0, "memory": 25.0},
        "orin": {"gpu": 12.0, "cpu": 85.0, "memory": 90.0},
    }
    for name, values in wanted.items():
        set_load(lab.machine(name), values)
    wait_until(
        lambda: agree(loads(lab, PROMETHEUS_PORT), wanted),
        timeout=40,
        describe=lambda: f"{loads(lab, PROMETHEUS_PORT)} is {wanted}",
        pause=0.5,
    )


def test_a_load_that_cannot_be_is_refused(lab: Lab) -> None:
    with pytest.raises(LabError, match="gpu=170: gpu, cpu or memory, 0 to 100 percent"):
        set_load(lab.machine("agx"), {"gpu": 170})
    with pytest.raises(LabError, match="pi1 plays no load"):
        set_load(lab.machine("pi1"), {"gpu": 10})


def test_the_products_exporter_finds_the_load_where_a_board_would_show_it(lab: Lab) -> None:
    for name in ("agx", "orin"):
        assert lab.machine(name).shell("cat /etc/posture-lab/sys/devices/gpu.0/load") == "50\n"
