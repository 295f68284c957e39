# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is asked of Prometheus: the nodes and the metrics, from configuration, presets and defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

PRESETS: Mapping[str, Mapping[str, str]] = {
    "lab_jetson": {"gpu": "jetson_gpu_usage_percent or jetson_orin_gpu_load_percent"},
    # Some versions of the collector name the load "load"; its other values are frequencies.
    "jetson_stats": {"gpu": "jetson_usage_gpu{gpu=~'val|load'}"},
    "tegrastats": {
        "gpu": "tegrastats_gr3d_usage_percentage",
        "cpu": "avg without (core) (tegrastats_cpu_load_percentage)",
        "memory": "100 * tegrastats_ram_used_megabytes / tegrastats_ram_total_megabytes",
    },
    "node_exporter": {
        # irate() takes the window's last two samples: it follows within two scrapes. A late one makes it dip below 0.
        "cpu": "100 * clamp_min(1 - avg without (cpu, mode) (irate(node_cpu_seconds_total{mode='idle'}[$window])), 0)",
        "memory": "100 * (1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)",
    },
}
"""Queries of known exporters, in percent: preset -> metric -> PromQL."""


@dataclass(frozen=True)
class Node:
    """A machine whose load is wanted. `address`, else the name, finds series that only say `instance`."""

    name: str
    address: str | None = None
    worker: bool = True


@dataclass(frozen=True)
class Metric:
    """One kind of load. `query` gives one series a node, in percent or as a ratio of 1; `high` and `low` are percent.

    `$window` in the query is a range that holds two samples for certain. `sampled_at` is PromQL for the Unix time of
    each node's samples; without it, the times of all samples that the query's selectors find.
    """

    name: str
    query: str
    scale: str = "percent"
    high: float = 60
    low: float = 50
    node_label: str = "node"
    required_by: str | tuple[str, ...] = "all"
    sampled_at: str | None = None

    def is_required(self, node: Node) -> bool:
        """Whether the node is unknown without this metric."""
        if isinstance(self.required_by, tuple):
            return node.name in self.required_by
        return node.worker or self.required_by == "all"

    def sample_times(self) -> list[str]:
        """Return PromQL for the times of the samples that the query reads."""
        return [self.sampled_at] if self.sampled_at else _sample_times(self.query)


DEFAULT_METRICS = (
    Metric("gpu", PRESETS["lab_jetson"]["gpu"], required_by="workers"),
    Metric("cpu", PRESETS["node_exporter"]["cpu"]),
    Metric("memory", PRESETS["node_exporter"]["memory"], high=90, low=80),
)


def metrics_from(entries: Iterable[Mapping[str, Any]] | None) -> tuple[Metric, ...]:
    """Return the metrics of a configuration, DEFAULT_METRICS where it is None; ValueError names entry and key."""
    if entries is None:
        return DEFAULT_METRICS
    metrics = tuple(metric_from(entry) for entry in entries)
    names = ", ".join(metric.name for metric in metrics)
    if not metrics or len({metric.name for metric in metrics}) < len(metrics):
        raise ValueError(f"metrics: one or more are needed, each with a name of its own, not {names or 'none'}")
    return metrics


def metric_from(entry: Mapping[str, Any]) -> Metric:
    """Return the metric of one entry; what it leaves out is as in the default metric of its name. As above."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"metrics: an entry is a dictionary with a name, not {entry!r}")  # noqa: TRY004 - as the others
    given = {key: value for key, value in entry.items() if value is not None}
    name, preset = given.get("name"), given.pop("preset", None)
    if not isinstance(name, str) or not name:
        raise ValueError(f"metrics: name is missing in {dict(entry)}")
    if unknown := sorted(given.keys() - {each.name for each in fields(Metric)}):
        raise ValueError(f"metric {name}: there is no key {unknown[0]}")
    if preset is not None and name not in PRESETS.get(preset, {}):
        known = "; ".join(f"{each} has {', '.join(queries)}" for each, queries in PRESETS.items())
        raise ValueError(f"metric {name}: preset {preset} does not have it ({known}): name another or give a query")
    if preset is not None:
        given.setdefault("query", PRESETS[preset][name])
    for key in {"high", "low"} & given.keys():
        try:
            given[key] = float(given[key])
        except (TypeError, ValueError):
            raise ValueError(f"metric {name}: {key} is a number of percent, not {given[key]!r}") from None
    if isinstance(given.get("required_by"), (list, tuple)):
        given["required_by"] = tuple(map(str, given["required_by"]))
    default = next((metric for metric in DEFAULT_METRICS if metric.name == name), None)
    if not default and (missing := {"query", "high", "low"} - given.keys()):
        raise ValueError(f"metric {name}: {min(missing)} is missing, and there is no default metric of that name")
    metric = replace(default, **given) if default else Metric(**given)
    _check(metric)
    return metric


def _check(metric: Metric) -> None:
    by = metric.required_by
    rules = {
        "query": (metric.sampled_at or _sample_times(str(metric.query)), "selects no series"),
        "scale": (metric.scale in ("percent", "ratio"), "is neither percent nor ratio"),
        "high": (0 < metric.high <= 100, "is not within 0 and 100 percent"),
        "low": (0 < metric.low <= metric.high, f"is not within 0 and high, {metric.high:g} percent"),
        "node_label": (re.fullmatch(r"[a-zA-Z_]\w*", str(metric.node_label), re.ASCII), "is not the name of a label"),
        "required_by": (
            isinstance(by, tuple) or by in ("all", "workers"),
            "is neither all, workers nor a list of nodes",
        ),
    }
    for key, (holds, problem) in rules.items():
        if not holds:
            raise ValueError(f"metric {metric.name}: {key} {getattr(metric, key)!r} {problem}")


def nodes_from(entries: Iterable[Mapping[str, Any]]) -> tuple[Node, ...]:
    """Return the nodes of a configuration (name, address, role home or worker); ValueError names the entry."""
    nodes: dict[str, Node] = {}
    for entry in entries:
        name, role = entry.get("name"), entry.get("role") or "worker"
        if not name or name in nodes or role not in ("home", "worker"):
            raise ValueError(f"nodes: a name of its own and a role, home or worker, are needed, not {dict(entry)}")
        nodes[name] = Node(name, entry.get("address") or None, worker=role == "worker")
    return tuple(nodes.values())


_LITERAL = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)"""
_TOKEN = re.compile(
    rf"""
    {_LITERAL} | \#[^\n]* | \[[^]]*] | \d[\w.]*
    | \b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)
    | (?P<selector>(?P<name>[a-z_:][\w:]*+)? (?P<matchers>\s*\{{(?:{_LITERAL}|[^"'`}}])*}})?)
      (?!\s*(?:\(|(?:by|without)\b))
      (?:\s*\[[^]]*])?
      (?P<moved>(?:\s*(?:offset\s+-?\s*[\w.]+|@\s*(?:[\d.]+|(?:start|end)\s*\(\s*\))))*)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_KEYWORDS = {"and", "or", "unless", "atan2", "bool", "offset", "inf", "nan", "group_left", "group_right"}


def _sample_times(query: str) -> list[str]:
    """Return PromQL for the times of the samples that each of the query's selectors finds.

    timestamp() gives them for a bare selector only: of anything that was worked out it gives the time of the query.
    """
    tokens = [token for token in _TOKEN.finditer(query) if token["name"] or token["matchers"]]
    selectors = [f"{each['selector']}{each['moved']}" for each in tokens if each["selector"].lower() not in _KEYWORDS]
    return [f"timestamp({selector})" for selector in dict.fromkeys(selectors)]
