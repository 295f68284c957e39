"""What /metrics says about the offloader; docs/offload.md explains each."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from posture_edge.placement import Verdict

ASSIGNMENTS = Counter("posture_assignments_total", "Times a stream was given to a node.", ["stream", "node"])
FAILURES = Counter("posture_offload_failures_total", "Analyzers that failed or were not ready in time.", ["stream"])
READY_SECONDS = Histogram(
    "posture_analyzer_ready_seconds",
    "From the decision until the new analyzer was ready; the former one works meanwhile.",
    buckets=(1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 180, 600),
)
LOOK_SECONDS = Histogram(
    "posture_offloader_look_seconds",
    "One look at nodes, loads, Jobs and analyzers, with what it led to.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
LEADING = Gauge("posture_offloader_leading", "1 while this offloader holds the Lease.")
PRESSURE = Gauge("posture_node_pressure", "A node's largest load in parts of its limit; 1 is too busy.", ["node"])
STREAMS = Gauge("posture_streams", "Streams on a node.", ["node"])


def show_verdicts(verdicts: Iterable[Verdict]) -> None:
    """Show each node's pressure and streams; nodes that are gone or unknown are not shown."""
    PRESSURE.clear()
    STREAMS.clear()
    for verdict in verdicts:
        if verdict.pressure is not None:
            PRESSURE.labels(verdict.node).set(verdict.pressure)
            STREAMS.labels(verdict.node).set(verdict.streams)
