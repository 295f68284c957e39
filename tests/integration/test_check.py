"""`posture-analyzer check` fails exactly what is wrong, says what to do about it, and tells no password."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tests.support import programs
from tests.support.brokers import Broker
from tests.support.databases import Database
from tests.support.directories import unwritable
from tests.support.waiting import free_port

WRONG = "Falsch-41d7"
THINGS = ["broker", "database", "model", "images"]


def failures(
    broker: Broker, database: Database, directory: Path, *, wrapper: Iterable[str] = (), **settings: str
) -> dict[str, str]:
    """Run the command, and return its line about each thing that failed; the others are ok."""
    program = programs.analyzer(broker, database, directory, wrapper=wrapper, arguments=["check"], **settings)
    program.secrets.append(WRONG)
    program.log.unlink(missing_ok=True)
    with program:
        code = program.wait(timeout=60)
    assert "Traceback" not in program.output
    lines = program.output.splitlines()
    assert [line[5:].split()[0] for line in lines] == THINGS, program.output
    failed = {thing: line for thing, line in zip(THINGS, lines, strict=True) if line.startswith("FAIL")}
    assert code == (1 if failed else 0)
    return failed


def test_all_is_well(broker: Broker, database: Database, tmp_path: Path) -> None:
    assert failures(broker, database, tmp_path) == {}


def test_a_refused_password_at_the_broker_and_no_permission_on_the_directory(
    broker: Broker, database: Database, tmp_path: Path
) -> None:
    wrapper = unwritable(tmp_path / "images")
    failed = failures(broker, database, tmp_path, wrapper=wrapper, MQTT_PASSWORD=WRONG)
    assert failed.keys() == {"broker", "images"}
    assert f"broker 127.0.0.1:{broker.port} refuses user 'posture-analyzer-pi1'" in failed["broker"]
    assert "check the password" in failed["broker"]
    assert f"cannot write to {tmp_path / 'images'} as user id" in failed["images"]
    assert "Permission denied; make the directory, give it that owner" in failed["images"]


def test_a_missing_table_and_a_missing_model(broker: Broker, database: Database, tmp_path: Path) -> None:
    database.execute("DROP TABLE posture_results CASCADE")
    model = tmp_path / "heavy.task"
    failed = failures(broker, database, tmp_path, MODEL="heavy", MODEL_FILE=str(model))
    assert failed.keys() == {"database", "model"}
    assert 'relation "posture_results" does not exist; apply roles/database/files/migrations' in failed["database"]
    assert f"cannot use {model} as pose model: " in failed["model"]
    assert "No such file" in failed["model"]
    assert "POSTURE_MODEL_FILE" in failed["model"]


def test_a_database_that_takes_no_row_and_one_that_takes_no_row_of_ours(
    broker: Broker, database: Database, tmp_path: Path
) -> None:
    database.execute("ALTER TABLE posture_results ADD room text NOT NULL")
    failed = failures(broker, database, tmp_path)
    assert failed.keys() == {"database"}
    assert "column room: null value" in failed["database"]
    assert "give the column a default or let it be null" in failed["database"]
    for policy in ("posture_select", "posture_insert"):
        database.execute(f"DROP POLICY {policy} ON posture_results")
    failed = failures(broker, database, tmp_path)
    assert failed.keys() == {"database"}
    assert "CREATE POLICY posture_insert ON posture_results FOR INSERT TO posture" in failed["database"]
    assert database.count() == 0


def test_nobody_listens_where_broker_and_database_should_be(broker: Broker, database: Database, tmp_path: Path) -> None:
    away = replace(database, port=free_port())
    port = free_port()
    failed = failures(broker, away, tmp_path, MQTT_PORT=str(port))
    assert failed.keys() == {"broker", "database"}
    assert f"cannot reach broker 127.0.0.1:{port}: " in failed["broker"]
    assert f"database {database.name} at 127.0.0.1:{away.port} as user posture: " in failed["database"]
    assert all("refused" in line for line in failed.values())


def test_a_refused_password_of_the_database_and_a_missing_directory(
    broker: Broker, database: Database, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    failed = failures(broker, replace(database, password=WRONG), tmp_path, IMAGES_DIR=str(missing))
    assert failed.keys() == {"database", "images"}
    assert 'password authentication failed for user "posture"; correct the settings' in failed["database"]
    assert f"cannot write to {missing} as user id" in failed["images"]
    assert "No such file or directory; make the directory" in failed["images"]
