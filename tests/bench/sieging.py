"""One Pi's password against the stream `all`, for as long as you like."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.lab import Lab
from tests.support import hostile
from tests.support.limits import LimitedBroker, limits
from tests.support.mosquitto import NEW


def measure(lab: Lab, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Attack with everything there is; `result` is ok or what went wrong."""
    with (
        TemporaryDirectory(prefix="posture-siege-") as name,
        lab.cluster.database() as database,
        LimitedBroker(lab.mosquittos[NEW], Path(name) / "broker", pis=["pi1", "pi2"], limits=limits(1, 2)) as broker,
    ):
        siege = hostile.siege(broker, database, Path(name), seconds=options.siege, rate=options.siege_rate)
    held = not siege.lost and siege.longest_gap_s < 5
    return [
        {
            "seconds": options.siege,
            "hostile messages": sum(siege.sent.values()),
            "kinds": len(siege.sent),
            "the other camera's rows": siege.rows,
            "lost": len(siege.lost),
            "longest gap, s": siege.longest_gap_s,
            "peak, MB": siege.peak_mb,
            "result": "ok" if held else "held up",
        }
    ]
