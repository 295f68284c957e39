import errno
import re
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from posture_common import disk
from posture_common.service import LastingError, Stop
from posture_publisher import intake as intake_module
from posture_publisher import metrics
from posture_publisher.camera import CameraError
from posture_publisher.delivery import Delivery
from posture_publisher.intake import Intake
from posture_publisher.outbox import Outbox
from posture_publisher.spool import Picture, Spool

SIZE = 1000


class ScriptedCamera:
    """Gives what the script says and then stops the intake: a real camera does not fail on demand."""

    def __init__(self, stop: Stop, script: list[str], *, live: bool) -> None:
        self.live = live
        self.opened = 0
        self.noted = 0
        self._stop = stop
        self._script = script

    def __enter__(self) -> Self:
        self.opened += 1
        if self._script and self._script[0] == "missing":
            raise LastingError("no such module")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def take(self) -> Picture | None:
        step = self._script.pop(0) if self._script else "stop"
        if step == "fail":
            raise CameraError("the camera has gone")
        if step == "stop":
            self._stop.request()
        if step in {"stop", "none"}:
            return None
        data = b"x" * (SIZE * 100 if step == "large" else SIZE)
        return Picture(image_id=str(uuid.uuid4()), captured_at=datetime.now(UTC), filename=step, data=data)

    def spooled(self) -> None:
        self.noted += 1


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "IDLE_S", 0.01)
    monkeypatch.setattr(intake_module, "NO_ROOM_S", 0.01)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path, max_bytes=3 * (SIZE + 300), pi_id="pi1") as spool:
        yield spool


class Bench:
    def __init__(self, spool: Spool, script: list[str], *, live: bool) -> None:
        self.spool = spool
        self.stop = Stop()
        self.camera = ScriptedCamera(self.stop, script, live=live)
        self.outbox = Outbox(spool, Delivery(window=100, confirm_timeout=600, reconnect_timeout=30))
        self.intake = Intake(self.camera, self.outbox, interval=0.001, rotate=90, max_bytes=10 * SIZE, stop=self.stop)

    def names(self) -> list[str]:
        return [self.spool.read(entry).filename for entry in self.spool.entries()]


def dropped(reason: str) -> float:
    value: float = metrics.DROPPED.labels(reason=reason)._value.get()
    return value


def test_a_live_camera_gives_up_the_oldest_and_counts_it(spool: Spool) -> None:
    before = dropped("spool_full")
    bench = Bench(spool, ["1", "2", "3", "4", "5"], live=True)
    bench.intake.run()
    assert bench.names() == ["3", "4", "5"]
    assert {spool.read(entry).rotate for entry in spool.entries()} == {90}
    assert dropped("spool_full") - before == 2
    bench.outbox.connect()
    first = bench.outbox.next()
    assert first is not None
    assert spool.read(first.entry).filename == "3"  # what was given up is not sent any more


def test_under_the_disks_floor_a_live_camera_gives_up_the_oldest_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = iter([10_000, 10_000, *[0] * 20])
    monkeypatch.setattr(disk, "room", lambda path, floor: disk.Room(path, next(free), 10**6, floor.of(0), floor.text))
    with Spool(tmp_path, max_bytes=10**6, pi_id="pi1", floor=disk.floor("50")) as spool:
        bench = Bench(spool, ["1", "2", "3", "4"], live=True)
        bench.intake.run()
        assert bench.names()[-1] == "4"
        assert len(spool) <= 2
    [told] = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert re.fullmatch(r"the disk of /\S+ has less free space than .*; the oldest images are given up", told)
    assert bench.intake.problem == told.removesuffix("; the oldest images are given up")


def test_a_replay_waits_for_room_and_loses_nothing(spool: Spool) -> None:
    before = dropped("spool_full")
    bench = Bench(spool, ["1", "2", "3", "4", "5"], live=False)
    seen = []

    def confirm_when_full() -> None:
        while not bench.stop.wait(0.01):
            if len(spool) == 3:
                assert "POSTURE_SPOOL_MAX_BYTES" in (bench.intake.problem or "POSTURE_SPOOL_MAX_BYTES")
                oldest = spool.oldest()
                assert oldest
                seen.append(spool.read(oldest).filename)
                bench.outbox.confirmed(oldest.image_id)

    confirming = threading.Thread(target=confirm_when_full)
    confirming.start()
    bench.intake.run()
    confirming.join()
    assert sorted(seen + bench.names()) == ["1", "2", "3", "4", "5"]
    assert bench.camera.noted == 5
    assert dropped("spool_full") == before


@pytest.mark.parametrize("live", [True, False])
def test_a_full_disk_costs_a_live_camera_its_picture_and_a_replay_time(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, live: bool
) -> None:
    before = dropped("disk")
    put = Spool.put
    failures = iter([OSError(errno.ENOSPC, "No space left on device")] * 2)

    def put_or_fail(spool: Spool, picture: Picture) -> object:
        if picture.filename == "2" and (failure := next(failures, None)):
            raise failure
        return put(spool, picture)

    monkeypatch.setattr(Spool, "put", put_or_fail)
    monkeypatch.setattr("posture_publisher.backoff.FIRST_S", 0.01)
    bench = Bench(spool, ["1", "2", "3"], live=live)
    bench.intake.run()
    assert bench.names() == (["1", "3"] if live else ["1", "2", "3"])
    assert dropped("disk") - before == (1 if live else 0)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "cannot write to the spool: the disk is full: free space on it; "
        + ("pictures are lost until then" if live else "trying again")
    ]
    assert bench.intake.problem is None


def test_a_camera_that_fails_is_opened_again_and_told_once(
    spool: Spool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posture_publisher.backoff.FIRST_S", 0.01)
    bench = Bench(spool, ["1", "fail", "fail", "fail", "2"], live=True)
    bench.intake.run()
    assert bench.names() == ["1", "2"]
    assert bench.camera.opened == 4
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "the camera has gone; trying again"
    ]


def test_a_picture_that_nobody_would_take_is_refused(spool: Spool) -> None:
    before = dropped("refused")
    bench = Bench(spool, ["large", "1", "none", "2"], live=True)
    bench.intake.run()
    assert bench.names() == ["1", "2"]
    assert dropped("refused") - before == 1


def test_what_only_a_person_can_put_right_ends_it(spool: Spool) -> None:
    with pytest.raises(LastingError):
        Bench(spool, ["missing"], live=True).intake.run()


def test_a_directory_that_takes_long_to_look_at_is_looked_at_less_often(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []
    monkeypatch.setattr(intake_module, "IDLE_SHARE", 1000.0)
    bench = Bench(spool, ["none", "none"], live=False)
    take = bench.camera.take

    def take_slowly() -> Picture | None:
        time.sleep(0.01)
        return take()

    monkeypatch.setattr(bench.camera, "take", take_slowly)
    monkeypatch.setattr(bench.stop, "wait", lambda seconds: pauses.append(seconds))
    bench.intake.run()
    assert min(pauses) > 5


class HangingCamera(ScriptedCamera):
    """Hangs in its driver, where it is opened or where a picture is taken, until it is let go."""

    def __init__(self, stop: Stop, *, opening: bool) -> None:
        super().__init__(stop, [], live=True)
        self._opening = opening
        self.hangs = threading.Event()
        self.goes_on = threading.Event()

    def __enter__(self) -> Self:
        if self._opening:
            self._hang()
        return super().__enter__()

    def take(self) -> Picture | None:
        if not self._opening:
            self._hang()
        return super().take()

    def _hang(self) -> None:
        self.hangs.set()
        assert self.goes_on.wait(20)


@pytest.mark.parametrize("opening", [True, False])
def test_a_camera_that_hangs_is_noticed(spool: Spool, monkeypatch: pytest.MonkeyPatch, opening: bool) -> None:
    bench = Bench(spool, [], live=True)
    camera = HangingCamera(bench.stop, opening=opening)
    intake = Intake(camera, bench.outbox, interval=0.001, rotate=0, max_bytes=SIZE, stop=bench.stop)
    thread = threading.Thread(target=intake.run)
    thread.start()
    assert camera.hangs.wait(20)
    assert intake.alive() is None
    monkeypatch.setattr(intake_module, "HUNG_AFTER_S", -1.0)
    assert str(intake.alive()).startswith("the camera has not answered for ")
    camera.goes_on.set()
    thread.join(20)
    assert intake.alive() is None
