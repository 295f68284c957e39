"""What the policy would decide if the loads stayed as they are now, with the verdict on every node."""

from collections.abc import Iterable, Mapping
from typing import Any

from posture_edge.placement import WINDOW, History, Node, Placement, Plan, Settings, Snapshot, State, plan


def explain(
    nodes: Iterable[Node], streams: Iterable[str], *, placed: Mapping[str, str], home: str | None, settings: Settings
) -> Plan:
    """Return the plan for a lasting picture: every node looks as it does now in all of the samples that count.

    `placed` says where streams are (stream -> node), as if they had been there for long; the others are to be placed.
    """
    snapshot = Snapshot(0.0, tuple(nodes), tuple(streams), home)
    placements = {stream: Placement(node, float("-inf")) for stream, node in placed.items()}
    histories: Mapping[str, History] = {}
    for _ in range(WINDOW - 1):
        histories = plan(Snapshot(0.0, snapshot.nodes, (), home), State(histories), settings).state.histories
    return plan(snapshot, State(histories, placements), settings)


def as_json(planned: Plan, nodes: Iterable[Node]) -> dict[str, Any]:
    """Return the plan in the shape that `explain --json` prints."""
    loads = {node.name: dict(node.loads) for node in nodes}
    return {
        "streams": [
            {"stream": each.stream, "node": each.node, "from": each.previous, "reason": each.reason}
            for each in planned.decisions
        ],
        "nodes": [
            {
                "node": each.node,
                "loads": loads[each.node],
                "verdict": each.word.value,
                "reason": each.reason,
                "pressure": each.pressure,
                "expected": each.expected,
            }
            for each in sorted(planned.verdicts.values(), key=lambda verdict: verdict.rank)
        ],
    }


def as_text(planned: Plan) -> str:
    """Return the plan as a person wants to read it: a line for each stream, then one for each node, the best first."""
    decisions = [_sentence(each.stream, each.previous, each.node, each.reason) for each in planned.decisions]
    verdicts = sorted(planned.verdicts.values(), key=lambda verdict: verdict.rank)
    width = max(len(each.node) for each in verdicts)
    nodes = [
        f"{each.node:<{width}}  {_part(each.pressure)}  {_part(each.expected)}  {each.word.value:<10}  {each.reason}"
        for each in verdicts
    ]
    head = f"{'node':<{width}}  pressure  with one more stream"
    return "\n".join([*decisions, "", head.rstrip(), *nodes])


def _sentence(stream: str, previous: str | None, node: str | None, reason: str) -> str:
    if node is None:
        verb = "waits"
    elif previous is None:
        verb = f"goes to {node}"
    elif node == previous:
        verb = f"stays on {node}"
    else:
        verb = f"moves from {previous} to {node}"
    return f"{stream} {verb}: {reason}"


def _part(pressure: float | None) -> str:
    return "   ?" if pressure is None else f"{pressure:4.2f}"
