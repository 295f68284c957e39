"""A database that is not as the analyzer would have made it, or is not there."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg

from tests.integration.conftest import Station
from tests.support import programs
from tests.support.brokers import Broker
from tests.support.cameras import Camera, Results, left_in_session, open_session
from tests.support.databases import Database
from tests.support.images import Shot, nobody, photograph
from tests.support.programs import Program
from tests.support.waiting import free_port, wait_until


def test_a_labs_own_table_with_numeric_angles_is_read_too(
    broker: Broker, database: Database, tmp_path: Path, run: Callable[[Program], Program]
) -> None:
    numeric = ", ".join(f"ALTER {name} TYPE numeric(6, 2)" for name in ("neck_angle", "body_angle", "uncertainty"))
    database.execute(f"ALTER TABLE posture_results {numeric}")
    analyzer = run(programs.analyzer(broker, database, tmp_path))
    shot = Shot(data=photograph("camera"))
    with Results(broker) as results, Camera(broker, "pi1") as camera:
        camera.send([shot])
        wait_until(lambda: results.of(shot.image_id), timeout=20, describe="the result")
        camera.send([shot])
        wait_until(lambda: results.of(shot.image_id)[1:], timeout=20, describe=lambda: analyzer.output[-2000:])
        first, again = results.of(shot.image_id)
    assert again == first
    assert first["neck_angle"] > 0
    assert analyzer.terminate() == 0


def test_a_database_that_is_away_at_the_start_is_named_by_readyz(
    broker: Broker, database: Database, tmp_path: Path
) -> None:
    away = replace(database, port=free_port())
    with programs.analyzer(broker, away, tmp_path) as analyzer:
        named = f"database {away.name} at 127.0.0.1:{away.port} as user {away.user}"
        wait_until(
            lambda: named in analyzer.get("/readyz")[1],
            timeout=30,
            describe=lambda: f"{named} in {analyzer.get('/readyz')}",
        )
        status, text = analyzer.get("/readyz")
        assert (status, "refused" in text) == (503, True), text
        assert analyzer.terminate() == 0


def test_images_whose_rows_wait_for_the_database_are_counted_as_in_work(station: Station) -> None:
    def in_work() -> float:
        found = re.search(r"^posture_images_in_work (\S+)$", station.analyzer.get("/metrics")[1], re.MULTILINE)
        assert found
        return float(found[1])

    wait_until(lambda: in_work() == 0, timeout=10, describe="nothing is in work")
    with psycopg.connect(station.database.owner_url) as owner:
        owner.execute("LOCK TABLE posture_results IN EXCLUSIVE MODE")
        station.send("in-work", *[Shot(data=nobody()) for _ in range(3)])
        wait_until(lambda: in_work() == 3, timeout=10, describe="three images are in work")
    station.wait_rows("in-work", 3)
    wait_until(lambda: in_work() == 0, timeout=10, describe="nothing is in work any more")


def test_a_password_that_is_changed_while_it_runs_ends_it(
    broker: Broker, database: Database, tmp_path: Path, run: Callable[[Program], Program]
) -> None:
    analyzer = run(programs.analyzer(broker, database, tmp_path))
    database.execute(f"ALTER ROLE {database.user} PASSWORD 'another'")
    try:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            database.name,
        )
        with Camera(broker, "pi1") as camera:
            camera.send([Shot(data=nobody())])
        assert analyzer.wait(timeout=20) == programs.REFUSED
    finally:
        database.execute(f"ALTER ROLE {database.user} PASSWORD '{database.password}'")
    assert "refuses us: " in analyzer.output
    assert left_in_session(broker, "pi1") == 1, "the image stays at the broker"


def test_row_level_security_without_a_policy_is_refused_before_an_image_is_taken(
    broker: Broker, database: Database, tmp_path: Path
) -> None:
    for policy in ("posture_select", "posture_insert"):
        database.execute(f"DROP POLICY {policy} ON posture_results")
    open_session(broker, "pi1")
    with Camera(broker, "pi1") as camera:
        camera.send([Shot(data=nobody())])
    with programs.analyzer(broker, database, tmp_path) as analyzer:
        assert analyzer.wait(timeout=30) == programs.REFUSED
    assert "CREATE POLICY posture_insert" in analyzer.output
    assert "taking images" not in analyzer.output
    assert left_in_session(broker, "pi1") == 1
