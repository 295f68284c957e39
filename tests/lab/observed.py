"""The nodes' loads as the product reads them from a Prometheus, for tests."""

from collections.abc import Mapping

from posture_edge.load import DEFAULT_METRICS, Node, Prometheus, read_loads
from tests.lab.lab import Lab
from tests.lab.settings import CONTROL, NODES

Loads = Mapping[str, Mapping[str, float]]


def loads(lab: Lab, port: int) -> Loads:
    """Return each node's loads in percent, from the Prometheus on a port of the node that has one."""
    nodes = [Node(name, address=lab.machine(name).address, worker=name != CONTROL) for name in NODES]
    report = read_loads(Prometheus(f"http://{lab.machine(CONTROL).address}:{port}"), DEFAULT_METRICS, nodes)
    return {
        name: {metric: reading.percent for metric, reading in load.readings.items()}
        for name, load in report.nodes.items()
    }


def agree(seen: Loads, wanted: Loads) -> bool:
    """Whether all wanted loads are seen, as exactly as counters of two seconds can say."""
    return all(
        abs(seen[name].get(metric, -100) - value) <= 2
        for name, values in wanted.items()
        for metric, value in values.items()
    )
