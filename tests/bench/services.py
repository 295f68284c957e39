"""What an analyzer costs beside its work: the time until it is ready, and its memory."""

import argparse
import statistics
import time
from typing import Any

import psycopg

from tests.bench.lab import Lab, shots
from tests.support import programs
from tests.support.databases import Database
from tests.support.waiting import wait_until


def measure_startup(lab: Lab, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure from the start of the process to /readyz and to the first row; the first, cold start is not counted."""
    starts = []
    for _ in range(options.rounds + 1):
        with lab.queued(shots(1, width=640, height=480)) as (broker, database, directory):
            began = time.monotonic()
            with programs.analyzer(broker, database, directory, PASSES="2") as program:
                program.wait_ready()
                ready = time.monotonic() - began
                wait_until(database.count, timeout=30, describe="the first row")
                starts.append((ready, time.monotonic() - began))
    ready, first_row = (statistics.median(each) for each in zip(*starts[1:], strict=True))
    return [{"ready": ready, "first row": first_row, "cold: ready": starts[0][0], "cold: first row": starts[0][1]}]


def measure_memory(lab: Lab, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the analyzer's resident memory over a long run of 640x480 pictures, for one and for two workers."""
    rows = []
    count = options.memory_images
    for workers in (1, 2):
        row: dict[str, Any] = {"workers": workers}
        with (
            lab.queued(shots(count, width=640, height=480)) as (broker, database, directory),
            programs.analyzer(broker, database, directory, WORKERS=str(workers)) as program,
            psycopg.connect(database.owner_url, autocommit=True) as connection,
        ):
            for part in (count // 30, count // 3, count * 2 // 3, count):
                _wait_rows(connection, database, part)
                row[f"after {part}"] = program.rss_mb()
            row["peak"] = program.peak_mb()
        rows.append(row)
    return rows


def _wait_rows(connection: psycopg.Connection, database: Database, count: int) -> None:
    def done() -> bool:
        row = connection.execute("SELECT count(*) FROM posture_results").fetchone()
        return bool(row and row[0] >= count)

    wait_until(done, timeout=600, describe=f"{count} rows in {database.name}", pause=0.1)
