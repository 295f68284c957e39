import socket
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from posture_publisher.spool import Picture, Spool


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "posture-publisher", *arguments],
        env={f"POSTURE_{name}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def needed(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "samples").mkdir()
    (tmp_path / "spool").mkdir()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    return {
        "PI_ID": "pi1",
        "CAMERA": f"directory:{tmp_path}/samples",
        "SPOOL_DIR": f"{tmp_path}/spool",
        "MQTT_HOST": "127.0.0.1",
        "MQTT_PORT": str(port),
    }


def test_a_missing_setting_stops_it_with_one_line() -> None:
    ran = run()
    assert ran.returncode == 78
    assert ran.stderr == "posture-publisher: POSTURE_PI_ID is not set; POSTURE_CAMERA is not set\n"


def test_a_port_in_use_stops_it_with_one_line(needed: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run(**needed, HTTP_PORT=str(taken.getsockname()[1]))
    assert ran.returncode == 78
    assert "POSTURE_HTTP_PORT" in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr


def test_a_spool_in_use_stops_it_with_one_line(needed: dict[str, str]) -> None:
    with Spool(Path(needed["SPOOL_DIR"]), max_bytes=1, pi_id="pi1"):
        ran = run(**needed)
    assert ran.returncode == 78
    assert ran.stderr.startswith("posture-publisher: another posture-publisher uses the spool directory")


def test_a_missing_module_stops_it_with_one_line(needed: dict[str, str]) -> None:
    ran = run(**needed | {"CAMERA": "picamera2", "HTTP_PORT": needed["MQTT_PORT"]})
    assert ran.returncode == 78
    assert ran.stderr.splitlines()[-1].startswith("posture-publisher: Python module picamera2 cannot be imported")
    assert "Traceback" not in ran.stderr


def test_check_says_for_each_what_is_wrong_and_changes_nothing(needed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "samples" / "a.jpg").write_bytes(b"x")
    ran = run("check", **needed)
    assert ran.returncode == 1
    broker, camera, spool = ran.stdout.splitlines()
    assert broker.startswith("broker  wrong   cannot reach broker 127.0.0.1:")
    assert camera == f"camera  ok      {tmp_path}/samples holds 1 pictures"
    assert spool.startswith(f"spool   ok      {tmp_path}/spool is writable")
    assert list((tmp_path / "spool").iterdir()) == []
    ran = run("check", **needed | {"CAMERA": "v4l2:/dev/nothing", "SPOOL_DIR": f"{tmp_path}/nowhere"})
    assert [line.split()[1] for line in ran.stdout.splitlines()] == ["wrong", "wrong", "wrong"]
    assert "/dev/nothing" in ran.stdout
    assert f"{tmp_path}/nowhere" in ran.stdout


@pytest.mark.parametrize("command", [(), ("check",)])
def test_a_spool_of_another_pi_stops_it_with_one_line(needed: dict[str, str], command: tuple[str, ...]) -> None:
    with Spool(Path(needed["SPOOL_DIR"]), max_bytes=10**6, pi_id="pi7") as spool:
        spool.put(Picture(image_id=str(uuid.uuid4()), captured_at=datetime.now(UTC), filename="a.jpg", data=b"x"))
    ran = run(*command, **needed)
    assert "holds 1 image(s) of pi7, and this is pi1: run with POSTURE_PI_ID=pi7" in ran.stdout + ran.stderr
    assert ran.returncode == (1 if command else 78)
    assert "Traceback" not in ran.stderr
