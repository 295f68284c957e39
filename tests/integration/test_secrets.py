"""No password appears in what the programs write or in their command lines, at any log level."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.brokers import Broker, analyzer_user
from tests.support.databases import Cluster, Database
from tests.support.images import shots
from tests.support.programs import Program
from tests.support.waiting import wait_until

Run = Callable[[Program], Program]


def test_debug_logs_hold_no_secret(broker: Broker, database: Database, tmp_path: Path, run: Run) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for shot in shots(5):
        (source / shot.filename).write_bytes(shot.data)
    analyzer = run(programs.analyzer(broker, database, tmp_path, LOG_LEVEL="DEBUG"))
    publisher = run(programs.publisher(broker, tmp_path, pi_id="pi1", source=source, LOG_LEVEL="DEBUG"))
    wait_until(lambda: database.count() == 5, timeout=20, describe="5 rows")
    broker.stop()
    wait_until(lambda: "lost" in analyzer.output + publisher.output, timeout=10, describe="the outage is noticed")
    broker.start()
    for program in (analyzer, publisher):
        assert not [secret for secret in program.secrets if secret in program.get("/metrics")[1]]
        command_line = Path(f"/proc/{program.process.pid}/cmdline").read_bytes().decode()
        assert not [secret for secret in program.secrets if secret in command_line]
        assert program.terminate() == 0
        assert "DEBUG" in program.output or program is publisher
    # Program looks for the secrets in both logs when the test ends.


def test_a_password_in_a_wrong_setting_is_not_shown(broker: Broker, database: Database, tmp_path: Path) -> None:
    url = database.url.replace("postgresql://", "postgresql:/ /")
    with programs.analyzer(broker, database, tmp_path, DATABASE_URL=url, MQTT_PORT="x") as program:
        assert program.wait(timeout=20) == programs.REFUSED


def test_secrets_come_from_files_too(broker: Broker, database: Database, tmp_path: Path, run: Run) -> None:
    files = {"MQTT_PASSWORD": broker.passwords[analyzer_user("pi1")], "DATABASE_URL": database.url}
    program = programs.analyzer(broker, database, tmp_path, LOG_LEVEL="DEBUG")
    for name, secret in files.items():
        (tmp_path / name).write_text(f"{secret}\n")
        del program.environment[f"POSTURE_{name}"]
        program.environment[f"POSTURE_{name}_FILE"] = str(tmp_path / name)
    run(program)


def test_the_labs_own_names_of_the_database_are_taken(
    broker: Broker, cluster: Cluster, database: Database, tmp_path: Path, run: Run
) -> None:
    program = programs.analyzer(broker, database, tmp_path)
    del program.environment["POSTURE_DATABASE_URL"]
    (tmp_path / "word").write_text(database.password)
    program.environment |= {
        "SUPABASE_HOST": "127.0.0.1",
        "SUPABASE_PORT": str(cluster.port),
        "SUPABASE_DB": database.name,
        "SUPABASE_USER": database.user,
        "SUPABASE_PASSWORD_FILE": str(tmp_path / "word"),
    }
    run(program)


def test_a_leak_would_be_noticed(tmp_path: Path) -> None:
    program = Program("python", {"PYTHONSTARTUP": ""}, log=tmp_path / "log", secrets=["Geheim-1"])
    program.log.write_text("connecting with Geheim-1\n")
    with pytest.raises(AssertionError, match="tells a password"), program:
        pass
