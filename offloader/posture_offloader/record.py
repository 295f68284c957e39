"""Writes a load trace from Prometheus, one line a tick, as `posture-offloader replay` reads it."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posture_edge.load import PrometheusError
from posture_offloader.site import Site
from posture_offloader.trace import Header


def record(
    site: Site, path: Path, *, interval_s: float, duration_s: float | None, said: Callable[[str], object]
) -> int:
    """Write a trace to a new file until `duration_s` is over or SIGINT comes; return the number of ticks.

    Raises FileExistsError: a trace is never written over. `said` takes a line for each time that Prometheus goes away
    or is back.
    """
    start = due = time.monotonic()
    ticks = 0
    away = False
    with path.open("x", encoding="utf-8", buffering=1) as file:
        # A trace knows no taints: a home that takes no streams is none of its nodes.
        names = tuple(node.name for node in site.nodes if not (site.tainted and node.name == site.home))
        file.write(json.dumps(Header(site.free_home, names, site.streams, site.settings.stream_load).as_json()) + "\n")
        try:
            while duration_s is None or due - start <= duration_s:
                time.sleep(max(0.0, due - time.monotonic()))
                line, problem = _look(site)
                if bool(problem) != away:
                    away = bool(problem)
                    said(f"{problem}: recorded as away" if problem else "Prometheus answers again")
                file.write(json.dumps({"t": round(time.monotonic() - start, 3), **line}) + "\n")
                ticks += 1
                # Looks that a slow Prometheus made impossible are left out: made up for at once they would be one look.
                due += interval_s * max(1, math.ceil((time.monotonic() - due) / interval_s))
        except KeyboardInterrupt:
            pass
    return ticks


def _look(site: Site) -> tuple[dict[str, Any], str]:
    try:
        nodes = site.look()
    except PrometheusError as error:
        return {"loads": {}, "prometheus": False}, str(error)
    loads = {
        node.name: {metric: round(load, 2) for metric, load in node.loads.items()}
        for node in nodes
        if node.unknown is None
    }
    return {"loads": loads}, ""
