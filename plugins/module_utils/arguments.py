# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The arguments of modules that read load: doc fragment posture.edge.prometheus describes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from .load import LoadReport, NodeLoad, Prometheus, metrics_from, nodes_from, read_loads

ARGUMENTS: dict[str, dict[str, Any]] = {
    "prometheus_url": {"type": "str", "required": True},
    "token": {"type": "str", "no_log": True},
    "user": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "ca_file": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 5},
    "scrape_interval": {"type": "float", "default": 2},
    "metrics": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "preset": {"type": "str", "choices": ["lab_jetson", "jetson_stats", "tegrastats", "node_exporter"]},
            "query": {"type": "str"},
            "scale": {"type": "str", "choices": ["percent", "ratio"]},
            "high": {"type": "float"},
            "low": {"type": "float"},
            "node_label": {"type": "str"},
            "required_by": {"type": "raw"},
            "sampled_at": {"type": "str"},
        },
    },
}


def hide_password(module: Any) -> None:
    """Keep a password that stands in the URL out of what Ansible shows of the module's arguments."""
    # Also in a URL that is none, which urlsplit would refuse.
    found = re.search(r"//[^:/@]*:([^/]+)@", module.params["prometheus_url"])
    if found:
        module.no_log_values |= {found[1], unquote(found[1])}


def loads_for(arguments: Mapping[str, Any]) -> LoadReport:
    """Read the loads that a module's arguments ask for; ValueError names a wrong argument, and PrometheusError."""
    for name in ("timeout", "scrape_interval"):
        if not arguments[name] > 0:
            raise ValueError(f"{name} must be more than 0 seconds, not {arguments[name]:g}")
    prometheus = Prometheus(
        arguments["prometheus_url"],
        token=arguments["token"],
        user=arguments["user"],
        password=arguments["password"],
        ca_file=arguments["ca_file"],
        validate_certs=arguments["validate_certs"],
        timeout_s=arguments["timeout"],
    )
    metrics, nodes = metrics_from(arguments["metrics"]), nodes_from(arguments["nodes"])
    return read_loads(prometheus, metrics, nodes, scrape_interval_s=arguments["scrape_interval"])


def readings_of(load: NodeLoad) -> dict[str, dict[str, float]]:
    """Return a node's readings as modules return them: metric -> percent and age_s."""
    return {
        metric: {"percent": round(reading.percent, 1), "age_s": round(reading.age_s, 2)}
        for metric, reading in load.readings.items()
    }
