"""The load that the nodes play, and the lab's own Prometheus that scrapes it, on ports that the product leaves free.

The product's exporter of a Jetson's GPU load finds the same values where a board's kernel would show them.
"""

import json
from collections.abc import Mapping, Sequence

from tests.lab.machine import Machine
from tests.lab.settings import CONTROL
from tests.lab.tools import LabError

PROMETHEUS_PORT = 9490
SYSFS = "etc/posture-lab/sys"
BOARDS = {"agx": "other", "orin": "orin"}  # as role exporter calls them
_FILE = "etc/posture-lab/load.json"
# The mission's metric names, by board; a node without one gets the first when a GPU load is set.
_METRICS = {"agx": "jetson_gpu_usage_percent", "orin": "jetson_orin_gpu_load_percent"}
_IDLE = {"cpu": 5.0, "memory": 20.0}
_INTERVAL = "2s"


def configure(nodes: Sequence[Machine]) -> None:
    """Write an idle load to each node, and to one of them what its Prometheus scrapes."""
    for node in nodes:
        gpu = {"gpu": 5.0} if node.name in _METRICS else {}
        _write(node, {"metric": _METRICS.get(node.name, _METRICS["agx"]), **_IDLE, **gpu})
        if node.name == CONTROL:
            node.write("etc/posture-lab/prometheus.yml", json.dumps(_prometheus(nodes), indent=2))


def set_load(node: Machine, values: Mapping[str, float]) -> None:
    """Change a node's load, in percent, by the names gpu, cpu, memory; the others stay."""
    if not (node.root / _FILE).exists():
        raise LabError(f"{node.name} plays no load: nodes do")
    for name, value in values.items():
        if name not in {"gpu", "cpu", "memory"} or not 0 <= value <= 100:
            raise LabError(f"{name}={value:g}: gpu, cpu or memory, 0 to 100 percent")
    _write(node, json.loads((node.root / _FILE).read_text()) | dict(values))


def _write(node: Machine, load: Mapping[str, str | float]) -> None:
    node.write(_FILE, json.dumps(load))
    if "gpu" in load:
        node.write(f"{SYSFS}/devices/gpu.0/load", f"{float(load['gpu']) * 10:.0f}\n")


def _prometheus(nodes: Sequence[Machine]) -> dict[str, object]:
    jobs = {"node": 9100, "jetson": 9491}
    return {
        "global": {"scrape_interval": _INTERVAL, "scrape_timeout": _INTERVAL},
        "scrape_configs": [
            {
                "job_name": job,
                "static_configs": [
                    {"targets": [f"{node.address}:{port}"], "labels": {"node": node.name}} for node in nodes
                ],
            }
            for job, port in jobs.items()
        ],
    }
