"""Files that are copied into a publisher's directory, as people and programs copy them, and their rows."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.brokers import Broker
from tests.support.databases import Database
from tests.support.images import nobody, numbered
from tests.support.programs import Program
from tests.support.waiting import wait_until


@pytest.fixture
def source(broker: Broker, database: Database, tmp_path: Path, run: Callable[[Program], Program]) -> Path:
    """The directory of a publisher and an analyzer that are ready."""
    source = tmp_path / "source"
    source.mkdir()
    run(programs.analyzer(broker, database, tmp_path))
    run(programs.publisher(broker, tmp_path, pi_id="pi1", source=source))
    return source


def test_a_copy_that_pauses_half_way_is_one_row_and_holds_up_no_other(source: Path, database: Database) -> None:
    slow, fast = numbered(nobody(), 1), numbered(nobody(), 2)
    with (source / "a.jpg").open("wb") as file:
        file.write(slow[: len(slow) // 2])
        file.flush()
        paused = time.monotonic()
        (source / "b.jpg").write_bytes(fast)
        wait_until(
            lambda: rows(database) == ["b.jpg"], timeout=20, describe=lambda: f"b.jpg is there: {rows(database)}"
        )
        wait_until(lambda: time.monotonic() - paused > 6, timeout=7, describe="more than a shorter patience has passed")
        file.write(slow[len(slow) // 2 :])
    wait_until(lambda: len(rows(database)) > 1, timeout=20, describe="the other is there")
    assert rows(database) == ["b.jpg", "a.jpg"]
    assert {row["posture_status"] for row in database.rows()} == {"No person detected"}


def rows(database: Database) -> list[str]:
    return [row["filename"] for row in database.rows()]
