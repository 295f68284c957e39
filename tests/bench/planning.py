"""How long the policy takes for 1,000 nodes and 1,000 streams."""

import argparse
import json
from functools import partial
from typing import Any

from posture_edge.placement import Node, Settings, Snapshot, State, plan
from tests.bench.lab import Lab
from tests.bench.timing import compare

NODES = STREAMS = 1000


def measure(lab: Lab, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time one plan in three situations; the baseline writes the same loads as JSON."""
    del lab
    calm = [_node(number, extra=0) for number in range(NODES)]
    busy = [_node(number, extra=45 * (number % 3 == 0)) for number in range(NODES)]
    placed = _plan(calm, State(), 0)
    overloaded = placed
    for tick in range(1, 3):
        overloaded = _plan(busy, overloaded, 3 * tick)
    situations = {
        "every stream is new": lambda: _plan(calm, State(), 0),
        "nothing moves": lambda: _plan(calm, placed, 3),
        "a third of the nodes is overloaded": lambda: _plan(busy, overloaded, 9),
    }
    loads = partial(json.dumps, [dict(node.loads) for node in calm])
    return [
        {"situation": situation, **compare(("plan", run), ("the loads as JSON", loads), 10 * options.rounds)}
        for situation, run in situations.items()
    ]


def _node(number: int, *, extra: float) -> Node:
    loads = {"gpu": number * 7 % 45 + extra, "cpu": number * 13 % 40 + extra, "memory": number * 3 % 80}
    return Node(f"node{number:04}", loads)


def _plan(nodes: list[Node], state: State, seconds: float) -> State:
    streams = [f"pi{number:04}" for number in range(STREAMS)]
    return plan(Snapshot(seconds, nodes, streams, home=nodes[0].name), state, Settings()).state
