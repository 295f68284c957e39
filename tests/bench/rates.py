"""Images per second: bare inference (a), the pipeline from broker to row (b), and a plain loop (c), side by side."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.lab import Lab, pictures, shots, watch_rate
from tests.support import programs

SIZES = {"480p": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
CORES = os.cpu_count() or 1


def measure(lab: Lab, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every size and encoding, the variants one after the other in each round."""
    rows = []
    for size in options.sizes:
        for encoding in options.encodings:
            raw, many, few = encoding == "raw", options.rate_images, options.rate_images // 2
            variants = {
                "bare": partial(_bare, size, passes=1, count=many),
                "pipeline": partial(_pipeline, lab, size, raw=raw, passes=1, count=many),
                "plain": partial(_plain, lab, size, raw=raw, count=few),
                "bare2": partial(_bare, size, passes=2, count=few),
                "pipeline2": partial(_pipeline, lab, size, raw=raw, passes=2, count=few),
            }
            rates: dict[str, list[float]] = defaultdict(list)
            for number in range(options.rounds):
                # Each round in another order: a slow minute of the machine does not always hit the same variant.
                order = list(variants) if number % 2 == 0 else list(reversed(variants))
                for name in order:
                    rates[name].append(variants[name]())
                    print(f"  {size} {encoding} {name}: {rates[name][-1]:.1f}/s", file=sys.stderr, flush=True)
            rows.append(_row(size, encoding, rates))
    return rows


def _row(size: str, encoding: str, rates: dict[str, list[float]]) -> dict[str, Any]:
    def ratio(over: str, under: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[over], rates[under], strict=True))

    return {
        "size": size,
        "encoding": encoding,
        "KB": round(statistics.mean(map(len, pictures(*SIZES[size]))) / 1024),
        "(a) bare": statistics.median(rates["bare"]),
        "(b) pipeline": statistics.median(rates["pipeline"]),
        "(c) plain loop": statistics.median(rates["plain"]),
        "b/a": ratio("pipeline", "bare"),
        "b/c": ratio("pipeline", "plain"),
        "two passes: bare": statistics.median(rates["bare2"]),
        "two passes: pipeline": statistics.median(rates["pipeline2"]),
        "two passes: b/a": ratio("pipeline2", "bare2"),
    }


def _bare(size: str, *, passes: int, count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="posture-bench-") as name:
        for number, data in enumerate(pictures(*SIZES[size])):
            (Path(name) / f"{number}.jpg").write_bytes(data)
        command = [sys.executable, "-m", "tests.bench.bare", name, str(CORES), str(passes), str(count)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {ran.stderr[-2000:]}")
    return float(ran.stdout)


def _pipeline(lab: Lab, size: str, *, raw: bool, passes: int, count: int) -> float:
    width, height = SIZES[size]
    with (
        lab.queued(shots(count, width=width, height=height), raw=raw) as (broker, database, directory),
        programs.analyzer(broker, database, directory, WORKERS=str(CORES), PASSES=str(passes)) as program,
    ):
        return watch_rate(database, count, process=program.process, log=program.log)


def _plain(lab: Lab, size: str, *, raw: bool, count: int) -> float:
    width, height = SIZES[size]
    with lab.queued(shots(count, width=width, height=height), raw=raw) as (broker, database, directory):
        environment = programs.analyzer(broker, database, directory).environment
        log = directory / "plain.log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", "tests.bench.plain"]
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            return watch_rate(database, count, process=process, log=log)
        finally:
            process.kill()
            process.wait()
