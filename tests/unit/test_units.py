"""Each service's unit lets it do what it has to, and little else."""

import re
import subprocess
from pathlib import Path

import pytest
from posture_common.notify import EVERY_S

from tests.support.units import directives, render

EXPOSED_AT_MOST = 2.0
SERVICES = {
    "analyzer",
    "broker",
    "database",
    "exporter",
    "metrics",
    "node_exporter",
    "publisher-directory",
    "publisher-picamera2",
    "publisher-v4l2",
}


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return render(tmp_path_factory.mktemp("units"))


def test_every_service_is_looked_at(units: dict[str, Path]) -> None:
    assert set(units) == {f"posture-{service}" for service in SERVICES}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_is_hardly_exposed(units: dict[str, Path], service: str) -> None:
    threshold = f"--threshold={EXPOSED_AT_MOST * 10:.0f}"
    command = ["systemd-analyze", "security", "--offline=true", threshold, str(units[f"posture-{service}"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_systemd_understands_a_unit(units: dict[str, Path], service: str) -> None:
    unit = units[f"posture-{service}"]
    # The programs are not here: a shell stands in for them.
    unit.write_text(re.sub(r"^(ExecStart=)\S+", r"\1/bin/sh", unit.read_text(), flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if unit.name in line and "'Restart" not in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_a_service_has_bounds_and_writes_no_core(units: dict[str, Path]) -> None:
    for name, unit in units.items():
        found = directives(unit)
        assert re.fullmatch(r"\d+[KMGT]?", found["MemoryMax"][0]), name
        assert int(found["TasksMax"][0]) > 0, name
        assert (found["LimitCORE"], found["UMask"]) == (["0"], ["0027"]), name


def test_our_own_programs_are_watched(units: dict[str, Path]) -> None:
    watched = {name for name, unit in units.items() if directives(unit)["Type"] == ["notify"]}
    assert watched == {name for name in units if "analyzer" in name or "publisher" in name}
    for name in watched:
        found = directives(units[name])
        assert int(found["WatchdogSec"][0]) >= 4 * EVERY_S
        assert found["Restart"] == ["on-failure"]


def test_only_a_publisher_with_a_camera_has_devices(units: dict[str, Path]) -> None:
    cameras = {name for name, unit in units.items() if "PrivateDevices" not in directives(unit)}
    assert cameras == {"posture-publisher-picamera2", "posture-publisher-v4l2"}
    for name in cameras:
        found = directives(units[name])
        assert found["DevicePolicy"] == ["closed"]
        assert "char-video4linux rw" in found["DeviceAllow"]
    assert "char-dma_heap rw" in directives(units["posture-publisher-picamera2"])["DeviceAllow"]
