"""Generated passwords are made anew by name."""

from pathlib import Path

from tests.support.plays import refusals, refused, role, run_play


def test_the_named_passwords_are_forgotten_and_no_other(tmp_path: Path) -> None:
    kept = tmp_path / ".secrets"
    kept.mkdir()
    for name in ("database", "mqtt-pi1", "mqtt-pi2"):
        (kept / f"{name}.txt").write_text(name)
    for wanted, left in (
        ("", {"database.txt", "mqtt-pi1.txt", "mqtt-pi2.txt"}),
        ("database, mqtt-pi1", {"mqtt-pi2.txt"}),
        ("all", set[str]()),
    ):
        variables = {"posture_secrets_dir": str(kept), "posture_rotate": wanted}
        ran = run_play(tmp_path, [role("common", variables, tasks_from="rotate")], groups=["broker", "database"])
        assert ran.returncode == 0, ran.stdout
        assert {path.name for path in kept.glob("*")} == left


def test_an_unknown_name_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    kept = tmp_path / ".secrets"
    kept.mkdir()
    for name in ("database", "mqtt-pi1"):
        (kept / f"{name}.txt").write_text(name)
    variables = {"posture_secrets_dir": str(kept), "posture_rotate": "mqtt-pi1,pi2"}
    attempts = {"name": role("common", variables, tasks_from="rotate")}
    run_play(tmp_path, refusals(tmp_path, attempts), groups=["broker", "database"])
    said = refused(tmp_path)["name"]
    assert said
    assert said.startswith(f"posture_rotate names pi2, and {kept} has database, mqtt-pi1: name one of these")
    assert (kept / "mqtt-pi1.txt").exists()
