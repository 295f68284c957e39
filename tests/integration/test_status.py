"""What `make status` shows of the database and of the rows that it refused."""

from pathlib import Path

from tests.support.databases import Database
from tests.support.plays import Task, role, run_play

STATUS = "INSERT INTO posture_results (pi_id, image_id, captured_time, received_time, analyzed_time, clock_suspect)"


def shown(directory: Path, task: Task) -> str:
    # The machine's own Python: it has the driver that a deployment uses.
    facts: Task = {"ansible.builtin.setup": {"gather_subset": ["!all", "service_mgr"]}}
    ran = run_play(directory, [facts, task], groups=["broker", "database"], python="/usr/bin/python3")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
    return " ".join(ran.stdout.split())  # Ansible breaks long lines.


def test_refused_rows_are_shown_where_they_lie(tmp_path: Path) -> None:
    services = role("report", {"posture_images_dir": str(tmp_path / "images")}, tasks_from="services")
    letters = tmp_path / "images/dead-letters"
    assert "refused rows in" not in shown(tmp_path, services)
    letters.mkdir(parents=True)
    (letters / ".pi1-0.json.part").touch()
    assert "refused rows in" not in shown(tmp_path, services)
    for number in range(2):
        (letters / f"pi1-{number}.json").touch()
    assert f"refused rows in {letters}: 2; mend the table, then run posture-analyzer retry" in shown(tmp_path, services)


def test_how_long_rows_take_is_not_counted_from_a_clock_that_is_wrong_or_a_photograph(
    database: Database, tmp_path: Path
) -> None:
    received, analyzed = "'2026-05-04 12:00Z'", "'2026-05-04 12:00:02Z'"
    for number, (captured, suspect) in enumerate(
        [
            ("'2026-05-04 11:59:59Z'", False),
            ("NULL", False),
            ("'1970-01-01 00:00:09Z'", True),
            ("'2026-05-04 12:04Z'", True),
            ("'2025-03-01 10:00Z'", False),
        ]
    ):
        database.execute(f"{STATUS} VALUES ('pi1', '{number}', {captured}, {received}, {analyzed}, {suspect})")
    output = shown(tmp_path, role("report", {"posture_database_url": database.url}))
    assert "images received 5" in output
    assert "arrival to row 2.00 s, median" in output


def test_it_says_whom_to_trust_and_what_can_be_seen_without_tls(database: Database, tmp_path: Path) -> None:
    """And nothing of TLS where all is on one machine."""
    cases: dict[str, tuple[dict[str, object], bool]] = {
        "with": ({"__common_one_machine": False, "posture_secrets_dir": "/lab/.secrets"}, True),
        "without": ({"__common_one_machine": False, "posture_tls": False}, True),
        "one machine": ({}, False),
    }
    output = {}
    for name, (variables, _) in cases.items():
        (tmp_path / name).mkdir()
        task = role("report", {"posture_database_url": database.url, **variables})
        output[name] = shown(tmp_path / name, task)
    assert "TLS trusts /lab/.secrets/tls/ca.crt, which cameras and dashboards of your own need" in output["with"]
    assert "TLS is off (posture_tls): whoever listens on the network sees the Pis' passwords" in output["without"]
    assert {name: "TLS " in text for name, text in output.items()} == {name: told for name, (_, told) in cases.items()}
