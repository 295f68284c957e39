# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads the nodes' load from Prometheus: for each node and metric a percentage and the age of its samples.

One request for each metric, whatever the number of nodes, all side by side. A request asks for the metric's values and
for the times of the samples behind them. A node without samples, with old ones or with an impossible value is unknown.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from .metrics import DEFAULT_METRICS, PRESETS, Metric, Node, metric_from, metrics_from, nodes_from
from .prometheus import REQUESTS_MISSING, Prometheus, PrometheusError, QueryError

__all__ = [
    "DEFAULT_METRICS",
    "PRESETS",
    "REQUESTS_MISSING",
    "LoadReport",
    "Metric",
    "Node",
    "NodeLoad",
    "Prometheus",
    "PrometheusError",
    "Reading",
    "metric_from",
    "metrics_from",
    "nodes_from",
    "read_loads",
]

OLDEST_INTERVALS = 3
"""Samples that are more scrape intervals old than that say nothing about now."""
WINDOW_INTERVALS = 4
"""The length of `$window`: it holds two samples even where two scrapes in between were lost."""
TOLERANCE = 0.5
"""How many percentage points below 0 or above 100 are taken as 0 or 100: where scrapes come 10 ms late, the rate of a
counter over 2 s is wrong by that much. Anything beyond is an error."""

_TIMES = "posture_times"


@dataclass(frozen=True)
class Reading:
    """A value from 0 to 100 percent, and how old its oldest sample is by Prometheus's clock."""

    percent: float
    age_s: float


@dataclass(frozen=True)
class NodeLoad:
    """What a node is known to carry; `unknown` says why that is not enough, None where it is.

    `missing` are the required metrics without a value; `stale` has the age in seconds of those that are too old.
    """

    readings: Mapping[str, Reading]
    unknown: str | None = None
    missing: tuple[str, ...] = ()
    stale: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadReport:
    """The load of every node that was asked for, and the `errors`: failed queries and impossible series."""

    nodes: Mapping[str, NodeLoad]
    errors: tuple[str, ...] = ()


def read_loads(
    prometheus: Prometheus, metrics: Sequence[Metric], nodes: Iterable[Node], *, scrape_interval_s: float = 2.0
) -> LoadReport:
    """Ask for all metrics and return every node's load.

    Raises PrometheusError where no metric at all can be asked for. Where one of them fails, the nodes that require it
    are unknown.
    """
    nodes = tuple(nodes)
    columns = [_Column(metric, nodes, scrape_interval_s) for metric in metrics]
    with ThreadPoolExecutor(max_workers=max(1, len(columns))) as pool:
        unreachable = [error for error in pool.map(lambda column: column.ask(prometheus), columns) if error]
    if unreachable and len(unreachable) == len(columns):
        raise unreachable[0]
    loads = {node.name: _node_load(node, columns) for node in nodes}
    return LoadReport(loads, tuple(error for column in columns for error in column.errors))


def _node_load(node: Node, columns: Iterable[_Column]) -> NodeLoad:
    readings: dict[str, Reading] = {}
    reasons: list[str] = []
    missing: list[str] = []
    stale: dict[str, float] = {}
    for column in columns:
        name, required = column.metric.name, column.metric.is_required(node)
        try:
            readings[name] = column.read(node)
        except _ImpossibleError as error:
            column.errors.append(str(error))
            reasons.append(str(error))
        except _StaleError as error:
            stale[name] = error.age_s
            reasons += [str(error)] * required
        except _MissingError as error:
            missing += [name] * required
            reasons += [str(error)] * required
    return NodeLoad(readings, "; ".join(reasons) or None, tuple(missing), stale)


class _MissingError(Exception):
    """There is no value."""


class _StaleError(Exception):
    """There are samples, and they are too old."""

    def __init__(self, text: str, age_s: float) -> None:
        super().__init__(text)
        self.age_s = age_s


class _ImpossibleError(Exception):
    """What there is cannot be true, so that the node is unknown even if it could do without the metric."""


class _Column:
    """One metric of all nodes: its request, and what came back, sorted by node."""

    def __init__(self, metric: Metric, nodes: Iterable[Node], scrape_interval_s: float) -> None:
        self.metric = metric
        self.errors: list[str] = []
        self._interval_s = scrape_interval_s
        self._query = metric.query.replace("$window", f"{math.ceil(1000 * WINDOW_INTERVALS * scrape_interval_s)}ms")
        self._names = {node.name for node in nodes}
        addresses: dict[str, list[str]] = defaultdict(list)
        for node in nodes:
            addresses[node.address or node.name].append(node.name)
        # An address of two nodes says nothing about either.
        self._by_address = {address: names[0] for address, names in addresses.items() if len(names) == 1}
        self._failure: Exception | None = None
        self._now_s = 0.0
        self._values: dict[str | None, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        self._sampled_s: dict[str | None, float] = {}

    def ask(self, prometheus: Prometheus) -> PrometheusError | None:
        """Take in Prometheus's answer; return why there is none, unless it is the query's own fault."""
        try:
            answer = prometheus.query(self._promql())
        except (PrometheusError, QueryError) as error:
            self._failure = error
            self.errors.append(f"metric {self.metric.name}: {error} (query: {self._query})")
            return error if isinstance(error, PrometheusError) else None
        self._now_s = answer.time_s
        for labels, value in answer.series:
            name = self._node_of(labels)
            if _TIMES not in labels:
                self._values[name].append((labels, value))
            elif value < self._sampled_s.get(name, math.inf):  # the oldest counts; a NaN is none
                self._sampled_s[name] = value
        return None

    def read(self, node: Node) -> Reading:
        """Return the node's reading; _MissingError, _StaleError, _ImpossibleError."""
        what = f"metric {self.metric.name} of node {node.name}"
        query = f"(query: {self._query})"
        oldest_s = OLDEST_INTERVALS * self._interval_s
        values, sampled_s = self._values.get(node.name, []), self._sampled_s.get(node.name)
        if self._failure:
            raise _MissingError(f"{what} is missing, as its query failed: {self._failure} {query}")
        if not values and sampled_s is None:
            raise _MissingError(f"{what} is missing: {self._others()} {query}")
        if len(values) > 1:
            both = " and ".join(_series(each[0]) for each in values)
            raise _ImpossibleError(f"{what} has {len(values)} series, {both}: let the query choose one {query}")
        if sampled_s is None:
            raise _MissingError(
                f"{what} is missing: {_series(values[0][0])} has ended as its exporter stopped answering, or "
                f"the query changes the labels that name the node and needs sampled_at {query}"
            )
        age_s = self._now_s - sampled_s
        if age_s < -oldest_s:
            raise _ImpossibleError(f"{what} was sampled {-age_s:.1f} s ahead of Prometheus: set the clocks {query}")
        if age_s > oldest_s:
            raise _StaleError(
                f"{what} is {age_s:.1f} s old, more than {OLDEST_INTERVALS} scrape intervals of {self._interval_s:g} s:"
                f" check its exporter and how often Prometheus scrapes it {query}",
                age_s,
            )
        if not values:
            raise _MissingError(f"{what} is missing: its samples give no value, a rate needs two of them {query}")
        labels, value = values[0]
        percent = 100 * value if self.metric.scale == "ratio" else value
        if not -TOLERANCE <= percent <= 100 + TOLERANCE:
            raise _ImpossibleError(
                f"{what} cannot be {percent:g} percent, as {_series(labels)} says: "
                f"check its exporter, and the metric's scale {query}"
            )
        return Reading(min(max(percent, 0.0), 100.0), max(age_s, 0.0))

    def _promql(self) -> str:
        """Return one query for values and sample times; a label marks the times."""
        by = ", ".join(dict.fromkeys((self.metric.node_label, "instance")))
        # Series with the same labels come from the same scrape: the first one's time will do. Line ends close comments.
        times = f"min by ({by}) ({' or '.join(self.metric.sample_times())}\n)"
        return f'({self._query}\n) or label_replace({times}, "{_TIMES}", "1", "", "")'

    def _node_of(self, labels: Mapping[str, str]) -> str | None:
        label = self.metric.node_label
        named = labels.get(label)
        if named in self._names:
            return named
        if named and label != "instance":
            return None  # another node, whatever the instance: that may be a proxy on one of ours
        instance = labels.get("instance", "")
        return self._by_address.get(instance) or self._by_address.get(instance.rpartition(":")[0].strip("[]"))

    def _others(self) -> str:
        """Return what the query finds, and what to do, where nothing of it is the node's."""
        count = sum(map(len, self._values.values()))
        found = f"none of the query's {count} series is its own" if count else "the query finds no series"
        if not self._values.get(None):
            return f"{found}, check that its exporter runs and is scraped"
        example = _series(self._values[None][0][0])
        return f"{found}, and {example} is no node's: check label {self.metric.node_label} and the nodes' addresses"


def _series(labels: Mapping[str, str]) -> str:
    """Return a series as Prometheus writes it."""
    pairs = ", ".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    return f"{labels.get('__name__', '')}{{{pairs}}}"
