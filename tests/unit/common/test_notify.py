"""What systemd hears of a program, over a socket as systemd's."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from posture_common.notify import BEATS, heartbeat
from posture_common.service import status_server

from tests.support.waiting import free_port, wait_until


class Systemd:
    """Listens to a service as systemd does."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(20)

    def environment(self, watchdog_s: float = 0) -> dict[str, str]:
        watchdog = {"WATCHDOG_USEC": str(round(watchdog_s * 1e6))} if watchdog_s else {}
        return {"NOTIFY_SOCKET": self.address, **watchdog}

    def hears(self) -> dict[str, str]:
        lines = self._socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    listener = Systemd(str(tmp_path / "notify") if request.param == "file" else f"@{tmp_path}/notify")
    yield listener
    listener.close()


def well() -> None:
    return None


def test_a_program_says_that_it_is_ready_and_well_and_stops(systemd: Systemd) -> None:
    with heartbeat(well, lambda: "waiting for\nthe broker", systemd.environment(0.2)):
        assert systemd.hears() == {"READY": "1", "WATCHDOG": "1", "STATUS": "waiting for the broker"}
        for _ in range(BEATS):
            assert systemd.hears() == {"WATCHDOG": "1", "STATUS": "waiting for the broker"}
    while (heard := systemd.hears()) != {"STOPPING": "1"}:
        assert heard["WATCHDOG"] == "1"


def test_a_program_that_hangs_is_not_well(systemd: Systemd) -> None:
    hangs = threading.Event()
    with heartbeat(lambda: "worker-1 hangs" if hangs.is_set() else None, well, systemd.environment(0.2)):
        assert systemd.hears()["WATCHDOG"] == "1"
        hangs.set()
        wait_until(
            lambda: systemd.hears() == {"STATUS": "worker-1 hangs"}, timeout=20, describe="the heart stops beating"
        )
        for _ in range(BEATS):
            assert systemd.hears() == {"STATUS": "worker-1 hangs"}
        hangs.clear()
        wait_until(lambda: systemd.hears().get("WATCHDOG"), timeout=20, describe="the heart beats again")


def test_a_program_that_begins_unwell_is_ready_later(systemd: Systemd) -> None:
    starts = threading.Event()
    with heartbeat(lambda: None if starts.is_set() else "starting", well, systemd.environment(0.2)):
        assert systemd.hears() == {"STATUS": "starting"}
        starts.set()
        wait_until(lambda: "READY" in systemd.hears(), timeout=20, describe="it is ready")


def test_without_a_watchdog_it_is_ready_all_the_same(systemd: Systemd) -> None:
    with heartbeat(well, well, systemd.environment()):
        assert systemd.hears()["READY"] == "1"
    assert systemd.hears() == {"STOPPING": "1"}


def test_without_systemd_nothing_is_sent() -> None:
    before = threading.active_count()
    with heartbeat(well, well, {}):
        assert threading.active_count() == before


def test_a_systemd_that_is_gone_costs_a_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with heartbeat(well, well, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        pass
    assert "systemd cannot be told READY=1: " in caplog.text


def test_the_status_server_tells_systemd_what_its_pages_say(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in systemd.environment(0.2).items():
        monkeypatch.setenv(name, value)
    with status_server("127.0.0.1", free_port(), alive=well, ready=lambda: "warming up"):
        assert systemd.hears() == {"READY": "1", "WATCHDOG": "1", "STATUS": "warming up"}
    wait_until(lambda: systemd.hears() == {"STOPPING": "1"}, timeout=20, describe="it says that it stops")
