"""Our own wheel is built once, from what is pinned, and leaves nothing behind."""

from pathlib import Path

import pytest

from tests.support.plays import role, run_play


def test_a_wheel_is_built_without_an_index_and_the_place_where_it_was_built_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, wheels = tmp_path / "temporary", tmp_path / "wheels"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/none")
    ran = run_play(
        tmp_path,
        [role("python_app", {"__python_app_wheel_dir": str(wheels)}, tasks_from="wheel")],
        groups=["broker", "database"],
    )
    assert ran.returncode == 0, ran.stdout
    assert [path.suffix for path in wheels.iterdir()] == [".whl"]
    assert list(temporary.glob("posture-wheel-*")) == []
