import ctypes
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from posture_publisher import clock as clock_module
from posture_publisher.clock import Clock, is_synchronised


class Machine:
    """The files of a machine, and what its kernel says: no test may set the clock."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.synchronised = False
        monkeypatch.setattr(clock_module, "is_synchronised", lambda: self.synchronised)

    def has(self, name: str, text: str = "") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def has_timesyncd(self) -> None:
        (self.root / "run/systemd/timesync").mkdir(parents=True)

    def has_battery(self, *, off_by: float) -> None:
        self.has("sys/class/rtc/rtc0/since_epoch", f"{int(time.time() + off_by)}\n")

    def doubt(self) -> str | None:
        return Clock(self.root).read().doubt


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_pi_that_waits_for_a_time_server_is_doubted(machine: Machine) -> None:
    machine.has_timesyncd()
    assert "nothing has set the clock" in (machine.doubt() or "")


@pytest.mark.parametrize("service", ["run/chrony/chronyd.pid", "run/ntpd.pid"])
def test_so_is_one_with_another_service(machine: Machine, service: str) -> None:
    machine.has(service)
    assert machine.doubt()


def test_a_machine_without_any_time_service_is_believed(machine: Machine) -> None:
    assert machine.doubt() is None


def test_a_clock_that_was_set_since_the_start_is_believed_also_when_the_network_has_gone(machine: Machine) -> None:
    machine.has_timesyncd()
    machine.has("run/systemd/timesync/synchronized")
    assert machine.doubt() is None


def test_a_clock_that_was_right_once_stays_so(machine: Machine) -> None:
    machine.has("run/chrony/chronyd.pid")
    machine.synchronised = True
    clock = Clock(machine.root)
    assert clock.read().doubt is None
    machine.synchronised = False  # the kernel says so hours after the last answer of a server
    assert clock.read().doubt is None


@pytest.mark.parametrize(("off_by", "believed"), [(0, True), (-30, True), (-3600, False), (-50 * 365 * 86400, False)])
def test_a_clock_with_a_battery_that_agrees_is_believed(machine: Machine, off_by: float, believed: bool) -> None:
    machine.has_timesyncd()
    machine.has_battery(off_by=off_by)
    assert (machine.doubt() is None) is believed


@pytest.mark.parametrize("year", [1970, 2000, 2025])
def test_a_clock_that_shows_the_past_is_doubted_whatever_the_kernel_says(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    past = SimpleNamespace(now=lambda _zone: datetime(year, 1, 1, tzinfo=UTC))
    machine.synchronised = True
    monkeypatch.setattr(clock_module, "datetime", past)
    assert f"shows {year}-01-01 00:00 UTC" in (machine.doubt() or "")


def test_a_change_is_told_once(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    machine.has_timesyncd()
    clock = Clock(machine.root)
    for _ in range(3):
        clock.read()
    machine.has("run/systemd/timesync/synchronized")
    for _ in range(3):
        assert clock.read().doubt is None
    levels = [(record.levelname, "clock" in record.message) for record in caplog.records]
    assert levels == [("WARNING", True), ("INFO", True)]


def test_this_machine_is_believed() -> None:
    before = datetime.now(UTC)
    moment = Clock().read()
    assert before <= moment.time <= datetime.now(UTC)
    assert moment.doubt is None


@pytest.mark.parametrize(("answer", "synchronised"), [(0, True), (5, False), (-1, True)])
def test_the_kernel_is_asked(monkeypatch: pytest.MonkeyPatch, answer: int, synchronised: bool) -> None:
    class Library:
        @staticmethod
        def adjtimex(status: ctypes.Array[ctypes.c_char]) -> int:
            assert not status.raw.strip(b"\0")  # asks, and sets nothing
            return answer

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library)
    assert is_synchronised() is synchronised
