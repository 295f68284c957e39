"""What the publisher's role decides: which packages a camera needs, and what becomes of a Pi's former name."""

from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT
from tests.support.plays import role, run_play


@pytest.mark.parametrize(
    ("camera", "requirements"),
    [("picamera2", "publisher"), ("directory:/samples", "publisher"), ("v4l2:/dev/video0", "publisher-v4l2")],
)
def test_the_role_installs_what_the_camera_needs(tmp_path: Path, camera: str, requirements: str) -> None:
    installed = dict.fromkeys(("python3-picamera2", "python3-venv"), "1")  # the first is in no archive of Debian's
    variables = {"posture_camera": camera, "__common_opt": str(tmp_path), "common_installed": installed}
    install = role("publisher", variables, tasks_from="install")
    ran = run_play(tmp_path, [install], arguments=["--check", "--diff"], groups=["broker", "database"])
    assert f"+++ after: {CHECKOUT / 'requirements' / requirements}.txt\n" in ran.stdout, ran.stdout


def test_what_waits_under_another_name_is_told_and_stays(tmp_path: Path) -> None:
    spools = tmp_path / "spool"
    for number, pi in enumerate(("pi1", "pi1", "pi2")):
        (spools / pi).mkdir(parents=True, exist_ok=True)
        (spools / pi / f"{number}.image").touch()
    variables = {"__publisher_spools": str(spools), "pi_id": "pi2"}
    others = role("publisher", variables, tasks_from="others")
    ran = run_play(tmp_path, [others], groups=["broker", "database"])
    said = " ".join(ran.stdout.split())
    assert f"localhost is pi2 now, and 2 image(s) that it took under another name wait in {spools}/pi1." in said
    assert len(list(spools.rglob("*.image"))) == 3
    (spools / "pi1").rename(tmp_path / "given up")
    assert "another name wait" not in run_play(tmp_path, [others], groups=["broker", "database"]).stdout
