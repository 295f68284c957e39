"""How long the offloader takes for a look and for what follows, but for what cluster, broker and Prometheus take."""

import argparse
import json
from typing import Any
from unittest import mock

from posture_edge import load
from tests.bench.lab import Lab
from tests.bench.timing import compare
from tests.support.worlds import World, offload, read_loads

SIZES = ((10, 20), (100, 200), (1000, 1000))  # nodes, streams


def measure(lab: Lab, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time a look of a settled lab of each size; the baseline reads all that is remembered of it as JSON."""
    del lab
    return [_measure(nodes, streams, 5 * options.rounds) for nodes, streams in SIZES]


def _measure(nodes: int, streams: int, rounds: int) -> dict[str, Any]:
    world = World(
        {f"node{number:04}": 10.0 + number % 40 for number in range(nodes)},
        streams=[f"pi{number:04}" for number in range(streams)],
        home=None,
    )
    with mock.patch.object(load, "read_loads", read_loads(world)):
        world.run(30)
        offloader = offload(world)

        def look() -> None:
            world.pass_time(3)
            offloader.look()
            offloader.follow()

        def baseline() -> None:
            for text in world.texts.values():
                json.loads(text)

        return {"nodes": nodes, "streams": streams, **compare(("look", look), ("records", baseline), rounds)}
