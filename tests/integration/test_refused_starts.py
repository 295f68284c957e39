"""A start that cannot succeed ends with exit code 78 and one clear line."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.brokers import Broker
from tests.support.databases import Database
from tests.support.directories import unwritable
from tests.support.programs import REFUSED, Program
from tests.support.waiting import free_port


def refusal(program: Program) -> str:
    """Start it, and return the one line with which it refuses."""
    program.log.unlink(missing_ok=True)
    with program:
        assert program.wait(timeout=30) == REFUSED, program.output
    output = program.output
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or "CRITICAL" in line] or lines[-1:]
    assert len(errors) == 1, output
    return errors[0]


def test_a_wrong_database_password(broker: Broker, database: Database, tmp_path: Path) -> None:
    line = refusal(programs.analyzer(broker, replace(database, password="Falsch-7d1c"), tmp_path))
    assert "database" in line
    assert database.user in line
    assert "password" in line
    assert "Falsch-7d1c" not in line


def test_a_wrong_value_in_the_databases_url(broker: Broker, database: Database, tmp_path: Path) -> None:
    line = refusal(programs.analyzer(broker, database, tmp_path, DATABASE_URL=f"{database.url}?sslmode=requires"))
    assert "database" in line
    assert "sslmode" in line


def test_a_missing_table(broker: Broker, database: Database, tmp_path: Path) -> None:
    database.execute("DROP TABLE posture_results CASCADE")
    line = refusal(programs.analyzer(broker, database, tmp_path))
    assert "posture_results" in line


def test_no_right_to_insert(broker: Broker, database: Database, tmp_path: Path) -> None:
    database.execute("REVOKE INSERT ON posture_results FROM posture")
    line = refusal(programs.analyzer(broker, database, tmp_path))
    assert "posture_results" in line
    assert "INSERT" in line


@pytest.mark.parametrize("part", ["analyzer", "publisher"])
def test_a_port_in_use(broker: Broker, database: Database, tmp_path: Path, part: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = str(taken.getsockname()[1])
        if part == "analyzer":
            program = programs.analyzer(broker, database, tmp_path, HTTP_PORT=port)
        else:
            program = programs.publisher(broker, tmp_path, pi_id="pi1", source=tmp_path, HTTP_PORT=port)
        line = refusal(program)
    assert port in line
    assert "POSTURE_HTTP_PORT" in line


def test_no_permission_on_the_images_directory(broker: Broker, database: Database, tmp_path: Path) -> None:
    wrapper = unwritable(tmp_path / "images")
    line = refusal(programs.analyzer(broker, database, tmp_path, wrapper=wrapper))
    assert str(tmp_path / "images") in line
    assert "ermission" in line


def test_no_permission_on_the_spool(broker: Broker, tmp_path: Path) -> None:
    wrapper = unwritable(tmp_path / "spool")
    program = programs.publisher(broker, tmp_path, pi_id="pi1", source=tmp_path, wrapper=wrapper)
    line = refusal(program)
    assert str(tmp_path / "spool") in line
    assert "ermission" in line


@pytest.mark.parametrize("part", ["analyzer", "publisher"])
def test_a_wrong_mqtt_password(each_broker: Broker, database: Database, tmp_path: Path, part: str) -> None:
    if part == "analyzer":
        program = programs.analyzer(each_broker, database, tmp_path, MQTT_PASSWORD="Falsch-93ab")
    else:
        source = tmp_path / "source"
        source.mkdir()
        (source / "a.jpg").write_bytes(b"")
        program = programs.publisher(each_broker, tmp_path, pi_id="pi1", source=source, MQTT_PASSWORD="Falsch-93ab")
    line = refusal(program)
    assert "127.0.0.1" in line
    assert "Falsch-93ab" not in line


# The settings' own tests hold the long list; here it is what each kind of mistake looks like to a user.
WRONG: list[tuple[str, str, str]] = [
    ("STREAM", "", "POSTURE_STREAM"),
    ("STREAM", "Not A Stream", "POSTURE_STREAM"),
    ("WORKERS", "many", "POSTURE_WORKERS"),
    ("MODEL", "heavy", "POSTURE_MODEL_FILE"),
    ("DATABASE_URL", "", "POSTURE_DATABASE_URL"),
    ("DATABASE_URL", "no url at all", "POSTURE_DATABASE_URL"),
    ("MQTT_PASSWORD_FILE", "/nonexistent", "POSTURE_MQTT_PASSWORD"),
]


@pytest.mark.parametrize(("name", "value", "named"), WRONG, ids=[f"{name}={value}" for name, value, _ in WRONG])
def test_a_wrong_setting(broker: Broker, database: Database, tmp_path: Path, name: str, value: str, named: str) -> None:
    line = refusal(programs.analyzer(broker, database, tmp_path, **{name: value}))
    assert named in line


PUBLISHER_WRONG: list[tuple[str, str, str]] = [
    ("PI_ID", "", "POSTURE_PI_ID"),
    ("PI_ID", "Pi_1", "POSTURE_PI_ID"),
    ("CAMERA", "film", "POSTURE_CAMERA"),
    ("WINDOW", "0", "POSTURE_WINDOW"),
]


@pytest.mark.parametrize(
    ("name", "value", "named"), PUBLISHER_WRONG, ids=[f"{name}={value}" for name, value, _ in PUBLISHER_WRONG]
)
def test_a_wrong_setting_of_the_publisher(broker: Broker, tmp_path: Path, name: str, value: str, named: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.jpg").write_bytes(b"")
    line = refusal(programs.publisher(broker, tmp_path, pi_id="pi1", source=source, **{name: value}))
    assert named in line
