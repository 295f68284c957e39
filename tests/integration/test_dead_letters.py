"""Rows that the database refuses: the stream goes on, and `posture-analyzer retry` puts them in later."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from posture_analyzer.dead_letters import MAX_LETTERS, DeadLetters
from posture_analyzer.refusals import Refusal

from tests.support import programs
from tests.support.brokers import Broker
from tests.support.cameras import Camera, Results, left_in_session
from tests.support.databases import Database
from tests.support.images import Shot, nobody
from tests.support.programs import Program
from tests.support.rows import row
from tests.support.waiting import free_port, wait_until

LONG = "a-name-of-more-than-twenty-characters.jpg"
NARROW = "ALTER TABLE posture_results ALTER filename TYPE varchar(20)"
WIDE = "ALTER TABLE posture_results ALTER filename TYPE text"


def letters(directory: Path) -> DeadLetters:
    return DeadLetters(directory / "images")


def retried(broker: Broker, database: Database, directory: Path) -> tuple[int, str]:
    """Run the command; return its exit code and what it says."""
    program = programs.analyzer(broker, database, directory, arguments=["retry"])
    program.log.unlink(missing_ok=True)
    with program:
        code = program.wait(timeout=30)
    return code, program.output


def result_of(results: Results, shot: Shot, analyzer: Program, *, number: int = 0) -> dict[str, Any]:
    wait_until(
        lambda: len(results.of(shot.image_id)) > number,
        timeout=20,
        describe=lambda: f"result {number} of {shot.filename}; the analyzer says: {analyzer.output[-2000:]}",
    )
    return results.of(shot.image_id)[number]


def metric(program: Program, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", program.get("/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_row_that_does_not_fit_costs_that_row_and_goes_in_later(
    broker: Broker, database: Database, tmp_path: Path, run: Callable[[Program], Program]
) -> None:
    database.execute(NARROW)
    analyzer = run(programs.analyzer(broker, database, tmp_path))
    bad = Shot(data=nobody(), filename=LONG)
    good = [Shot(data=nobody(32 + number, 32), filename=f"{number}.jpg") for number in range(6)]
    with Results(broker) as results, Camera(broker, "pi1") as camera:
        camera.send([*good[:3], bad, *good[3:]])
        for shot in good:
            assert "refused" not in result_of(results, shot, analyzer)
        first = result_of(results, bad, analyzer)
        camera.send([bad])
        assert result_of(results, bad, analyzer, number=1) == first, "it was analysed again"

    assert first["filename"] == LONG
    assert first["refused"] == f"column filename = '{LONG}': value too long for type character varying(20)"
    assert {stored["image_id"] for stored in database.rows()} == {shot.image_id for shot in good}
    assert metric(analyzer, 'posture_rows_refused_total{pi_id="pi1"}') == 1
    assert metric(analyzer, 'posture_images_repeated_total{pi_id="pi1"}') == 1
    [line] = [line for line in analyzer.output.splitlines() if "the database refuses its row" in line]
    assert f"image {LONG} of pi1: the database refuses its row: column filename = '{LONG}': value too long" in line
    [path] = letters(tmp_path).paths()
    assert str(path) in line
    assert json.loads(path.read_text())["row"] == {name: first[name] for name in first if name != "refused"}
    assert analyzer.terminate() == 0
    assert left_in_session(broker, "pi1") == 0

    code, said = retried(broker, database, tmp_path)
    assert code == 1
    assert f"left {path}: column filename = '{LONG}': value too long" in said
    assert f"rows put in: 0; left in {path.parent}: 1" in said

    database.execute(WIDE)
    code, said = retried(broker, database, tmp_path)
    assert (code, said) == (0, f"rows put in: 1; left in {path.parent}: 0\n")
    [stored] = [stored for stored in database.rows() if stored["image_id"] == bad.image_id]
    assert stored["captured_time"] == bad.captured_at
    assert letters(tmp_path).paths() == []
    assert retried(broker, database, tmp_path)[0] == 0


def test_a_table_that_takes_no_row_at_all_stops_no_image(
    broker: Broker, database: Database, tmp_path: Path, run: Callable[[Program], Program]
) -> None:
    database.execute("ALTER TABLE posture_results ADD room text NOT NULL")
    analyzer = run(programs.analyzer(broker, database, tmp_path))
    shots = [Shot(data=nobody(32 + number, 32)) for number in range(3)]
    with Results(broker) as results, Camera(broker, "pi1") as camera:
        camera.send(shots)
        for shot in shots:
            assert result_of(results, shot, analyzer)["refused"].startswith("column room: null value")
    assert "column room: null value" in analyzer.output.partition("taking images")[0], "it is said at the start"
    assert analyzer.terminate() == 0
    database.execute("ALTER TABLE posture_results ALTER room SET DEFAULT 'lab'")
    code, said = retried(broker, database, tmp_path)
    assert (code, database.count()) == (0, 3), said


def test_when_the_dead_letters_are_full_the_image_waits_and_nothing_is_lost(
    broker: Broker, database: Database, tmp_path: Path, run: Callable[[Program], Program]
) -> None:
    database.execute(NARROW)
    kept = letters(tmp_path)
    kept.directory.mkdir(parents=True)
    for number in range(MAX_LETTERS):
        (kept.directory / f"pi2-{number}.json").touch()
    analyzer = run(programs.analyzer(broker, database, tmp_path))
    assert f"{MAX_LETTERS} rows were refused and lie in {kept.directory}" in analyzer.output, "it is said at the start"
    shots = [Shot(data=nobody(33, 33), filename=LONG), Shot(data=nobody(34, 34), filename="short.jpg")]
    with Results(broker) as results, Camera(broker, "pi1") as camera:
        camera.send(shots)
        wait_until(
            lambda: f"is full: {MAX_LETTERS} refused rows" in analyzer.get("/readyz")[1],
            timeout=20,
            describe=lambda: f"it says so: {analyzer.output[-2000:]}",
        )
        assert not results.of(shots[0].image_id)
        kept.paths()[0].unlink()
        for shot in shots:
            result_of(results, shot, analyzer)
    assert kept.find(("pi1", shots[0].image_id)) is not None
    assert [stored["filename"] for stored in database.rows()] == ["short.jpg"]
    assert analyzer.terminate() == 0
    assert left_in_session(broker, "pi1") == 0


def test_retry_changes_nothing_that_is_there_and_says_what_is_damaged(
    broker: Broker, database: Database, tmp_path: Path
) -> None:
    kept = letters(tmp_path)
    kept.directory.mkdir(parents=True)
    kept.put(row("a"), Refusal(reason="too long"))
    kept.put(row("b"), Refusal(reason="too long"))
    kept.path(row("b").key).write_text("{")
    database.execute("INSERT INTO posture_results (pi_id, image_id, posture_status) VALUES ('pi1', 'a', 'Bad')")
    code, said = retried(broker, database, tmp_path)
    assert code == 1
    assert f"left {kept.path(row('b').key)}: cannot be read: " in said
    assert f"rows put in: 1; left in {kept.directory}: 1" in said
    [stored] = database.rows()
    assert stored["posture_status"] == "Bad"


def test_retry_at_a_database_that_is_away_keeps_all(broker: Broker, database: Database, tmp_path: Path) -> None:
    letters(tmp_path).directory.mkdir(parents=True)
    letters(tmp_path).put(row("a"), Refusal(reason="too long"))
    code, said = retried(broker, replace(database, port=free_port()), tmp_path)
    assert code == 1
    assert "run this again for the others" in said
    assert "Traceback" not in said
    database.execute("DROP TABLE posture_results")
    code, said = retried(broker, database, tmp_path)
    assert code == programs.REFUSED
    assert "apply roles/database/files/migrations" in said
    assert len(letters(tmp_path).paths()) == 1
