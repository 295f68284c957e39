"""A disk that runs under its floor: the analyzer takes nothing, says so, and goes on when there is room again."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.brokers import Broker
from tests.support.cameras import Camera, open_session
from tests.support.databases import Database
from tests.support.images import shots
from tests.support.losses import on_own_disk
from tests.support.programs import Program
from tests.support.waiting import wait_until

SIZE, FLOOR = 32 * 2**20, 8 * 2**20


class SmallDisk:
    """The analyzer's disk of its own, and what somebody else has put there."""

    def __init__(self, program: Program, images: Path) -> None:
        self.program = program
        self.path = Path(f"/proc/{program.process.pid}/root/{images}")
        wait_until(lambda: os.path.ismount(self.path), timeout=20, describe="the analyzer has a disk of its own")
        self._ballast = self.path / "ballast"

    def fill(self) -> None:
        room = os.statvfs(self.path)
        self._ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - FLOOR + 2**20))

    def free(self) -> None:
        self._ballast.unlink()

    def wait_told(self) -> str:
        wait_until(
            lambda: "less than the floor" in self.program.get("/readyz")[1],
            timeout=30,
            describe=lambda: f"/readyz tells of the disk: {self.program.get('/readyz')}",
        )
        status, told = self.program.get("/readyz")
        assert status == 503
        return told


@pytest.fixture
def disk(broker: Broker, database: Database, tmp_path: Path, run: Callable[[Program], Program]) -> SmallDisk:
    images = tmp_path / "images"
    program = programs.analyzer(
        broker, database, tmp_path, wrapper=on_own_disk(images, size=SIZE), DISK_FLOOR=f"{FLOOR} or 50%"
    )
    return SmallDisk(run(program), images)


def test_images_wait_at_the_broker_while_the_disk_is_low_and_come_when_there_is_room(
    disk: SmallDisk, broker: Broker, database: Database
) -> None:
    disk.program.wait_ready()
    disk.fill()
    told = disk.wait_told()  # before any image has come
    assert re.fullmatch(
        rf"the disk of /\S+/images has 7\.3\d MB of 33\.6 MB free, less than the floor of 8\.39 MB "
        rf"\(POSTURE_DISK_FLOOR={FLOOR} or 50%\): free space on it, or lower the floor; until then "
        r"images wait where they are\n",
        told,
    )
    with Camera(broker, "pi1") as camera:
        camera.send(shots(20))
    wait_until(
        lambda: "less free space than the floor" in disk.program.output,
        timeout=20,
        describe=lambda: f"the log says so: {disk.program.output}",
    )
    metrics = disk.program.get("/metrics")[1]
    [free, floor] = [
        float(re.findall(rf"^posture_disk_{name}_bytes (.*)$", metrics, re.MULTILINE)[0]) for name in ("free", "floor")
    ]
    assert free < floor == FLOOR
    assert disk.program.get("/healthz")[0] == 200
    assert database.count() == 0
    assert not list(disk.path.rglob("*.jpg"))

    disk.free()
    wait_until(lambda: database.count() == 20, timeout=30, describe="the rows come when there is room")
    disk.program.wait_ready()
    assert len(list(disk.path.rglob("*.jpg"))) == 20
    assert disk.program.output.count("less free space than the floor") == 1


def test_an_analyzer_that_starts_on_a_low_disk_says_so_and_goes_on_with_room(
    broker: Broker, database: Database, tmp_path: Path
) -> None:
    open_session(broker, "pi1")
    with Camera(broker, "pi1") as camera:
        camera.send(shots(1))
    images = tmp_path / "images"
    wrapper = on_own_disk(images, size=SIZE)
    with programs.analyzer(broker, database, tmp_path, wrapper=wrapper, DISK_FLOOR="99.99%") as program:
        disk = SmallDisk(program, images)
        ballast = disk.path / "ballast"
        ballast.write_bytes(bytes(2**20))
        assert disk.wait_told().startswith("warming up; the disk of ")
        wait_until(
            lambda: "less free space than the floor" in program.output,
            timeout=30,
            describe=lambda: f"the log says so: {program.output}",
        )
        assert database.count() == 0
        ballast.unlink()
        wait_until(lambda: "works again" in program.output, timeout=30, describe="it goes on")
