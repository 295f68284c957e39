"""Measures the pipeline and prints Markdown tables; the same, and the raw numbers, go to build/bench.

    python -m tests.bench                                   everything, about an hour on two cores
    python -m tests.bench rates --sizes 480p --rounds 3     images/s of one size
    python -m tests.bench losses --images 500 --only broker

Rates are compared within one run only: rounds of the variants are interleaved, and the ratios' medians are reported.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import loads, looking, losing, planning, rates, services, sieging
from tests.bench.lab import Lab
from tests.support.databases import Cluster
from tests.support.mosquitto import NEW, OLD, find_mosquitto

OUTPUT = Path(__file__).parents[2] / "build/bench"


@dataclass(frozen=True)
class Part:
    """One table of the report."""

    title: str
    measure: Callable[[Lab, argparse.Namespace], Sequence[Mapping[str, Any]]]


PARTS = {
    "rates": Part("Images per second", rates.measure),
    "startup": Part("Start-up, seconds", services.measure_startup),
    "memory": Part("Resident memory, MB", services.measure_memory),
    "losses": Part("Nothing lost, nothing twice", losing.measure),
    "siege": Part("One Pi against the others", sieging.measure),
    "loads": Part("Reading the nodes' load", loads.measure),
    "planning": Part("Planning 1,000 streams on 1,000 nodes", planning.measure),
    "looking": Part("One look of the offloader", looking.measure),
    "module": Part("One more task in a play", loads.measure_module),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts; 1 where an image was lost."""
    options = _parse(arguments)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    measured: dict[str, Sequence[Mapping[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="posture-bench-") as directory, ExitStack() as stack:
        cluster = stack.enter_context(Cluster(Path(directory)))
        lab = Lab(cluster=cluster, mosquittos={which: find_mosquitto(which) for which in (OLD, NEW)})
        for name in options.parts or PARTS:
            part = PARTS[name]
            print(f"{part.title} ...", file=sys.stderr, flush=True)
            measured[name] = part.measure(lab, options)
            print(f"\n## {part.title}\n{table(measured[name])}", flush=True)
            _save(measured)
    return 1 if any(row.get("result", "ok") != "ok" for rows in measured.values() for row in rows) else 0


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table; their keys are the columns."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value).replace("|", "/").replace("\n", " ")


def _save(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    (OUTPUT / "results.json").write_text(json.dumps({**machine, **measured}, indent=1) + "\n")
    tables = "\n".join(f"\n## {PARTS[name].title}\n{table(rows)}" for name, rows in measured.items())
    (OUTPUT / "report.md").write_text(f"# Bench on {machine['cores']} cores ({machine['machine']})\n{tables}\n")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures the pipeline.")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="default: all")
    parser.add_argument(
        "--rounds", type=int, default=3, help="interleaved rounds of each rate, and starts (%(default)s)"
    )
    parser.add_argument("--sizes", nargs="+", choices=rates.SIZES, default=list(rates.SIZES), help="default: all")
    parser.add_argument("--encodings", nargs="+", choices=["base64", "raw"], default=["base64", "raw"])
    parser.add_argument("--rate-images", type=int, default=200, help="images for each rate (%(default)s)")
    parser.add_argument("--memory-images", type=int, default=3000, help="images of a memory run (%(default)s)")
    parser.add_argument("--images", type=int, default=2000, help="images of a loss run (%(default)s)")
    parser.add_argument("--outage", type=float, default=60, help="seconds that the database is stopped (%(default)s)")
    parser.add_argument("--siege", type=float, default=600, help="seconds of a siege (%(default)s)")
    parser.add_argument("--siege-rate", type=float, default=5, help="hostile messages a second (%(default)s)")
    parser.add_argument("--only", default="", help="loss runs whose name holds this text")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
