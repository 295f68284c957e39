"""Whether this machine's clock can be believed. A Pi has no battery: until the network tells it the time, it counts on
from when it was switched off.

The kernel's own flag is not enough: it is also up where no time service runs (most containers and virtual machines,
whose clocks are right), and again hours after the network has gone. So the clock is doubted only where a time service
runs, that has not set it since the start of the machine, and there is no battery-backed clock that agrees; or where it
shows a time before this program was written.
"""

import ctypes
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger(__name__)

_WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock that is right shows an earlier time."""
_SERVICES = ("run/systemd/timesync", "run/chrony", "run/ntpd.pid")
"""What systemd-timesyncd, chrony and ntpd leave there while they run."""
_SET_BY_TIMESYNCD = "run/systemd/timesync/synchronized"
_AGREES_S = 60.0
_TIME_ERROR = 5
_TIMEX_BYTES = 512  # more than struct timex takes on any machine


@dataclass(frozen=True, slots=True)
class Moment:
    """What the clock shows (in UTC), and why that cannot be believed, None where it can."""

    time: datetime
    doubt: str | None


class Clock:
    """Reads the clock, and tells once when it can no longer, or can again, be believed.

    Args:
        root: where the machine's files are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._was_set = False
        self._doubt: str | None = None

    def read(self) -> Moment:
        """Return the time, and whether it can be believed."""
        now = datetime.now(UTC)
        doubt = self._look(now)
        if doubt != self._doubt:
            if doubt:
                log.warning("%s; the images go with the mark clock=unsynchronised until it is set", doubt)
            else:
                log.info("the clock of this machine is set: the images go without a mark")
        self._doubt = doubt
        return Moment(now, doubt)

    def _look(self, now: datetime) -> str | None:
        if now < _WRITTEN:
            return f"the clock of this machine shows {now:%Y-%m-%d %H:%M} UTC, which is in the past"
        self._was_set = self._was_set or is_synchronised() or (self._root / _SET_BY_TIMESYNCD).exists()
        if self._was_set or not any((self._root / name).exists() for name in _SERVICES) or self._battery_agrees(now):
            return None
        return (
            "nothing has set the clock of this machine since its start: let it reach a time server "
            "(timedatectl timesync-status, or chronyc sources, says which it asks)"
        )

    def _battery_agrees(self, now: datetime) -> bool:
        for file in self._root.glob("sys/class/rtc/*/since_epoch"):
            with suppress(OSError, ValueError):
                if abs(int(file.read_text()) - now.timestamp()) < _AGREES_S:
                    return True
        return False


def is_synchronised() -> bool:
    """Return whether the kernel says that a time service keeps its clock right; also where it cannot be asked."""
    status = ctypes.create_string_buffer(_TIMEX_BYTES)  # all zero: only asks
    try:
        return int(ctypes.CDLL(None).adjtimex(status)) != _TIME_ERROR
    except (OSError, AttributeError):
        return True
