"""The loss scenarios of the tests over many more images, with both brokers."""

import argparse
import sys
import time
from functools import partial
from typing import Any

from tests.bench.lab import Lab
from tests.support import losses


def measure(lab: Lab, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run each scenario; `result` is ok or what went wrong."""
    scenarios = dict(losses.LOSSES)
    scenarios[f"database stopped {options.outage:g} s"] = partial(losses.database_stopped, seconds=options.outage)
    rows = []
    for name, scenario in scenarios.items():
        for mosquitto in lab.mosquittos.values():
            if options.only not in name:
                continue
            began = time.monotonic()
            with losses.site(mosquitto, lab.cluster) as site:
                try:
                    scenario(site, options.images)
                    result = "ok"
                except (AssertionError, TimeoutError, RuntimeError) as error:
                    result = f"{type(error).__name__}: {error}"[:500]
            seconds = round(time.monotonic() - began)
            version = ".".join(map(str, mosquitto.version))
            rows.append(
                {"fault": name, "mosquitto": version, "images": options.images, "seconds": seconds, "result": result}
            )
            print(f"  {name}, mosquitto {version}: {result} ({seconds} s)", file=sys.stderr, flush=True)
    return rows
