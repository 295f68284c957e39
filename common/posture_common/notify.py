"""Tell systemd how the program stands: that it is ready, that it is well, that it stops.

    systemd gives NOTIFY_SOCKET and WATCHDOG_USEC     the program sends READY=1, then WATCHDOG=1 again and again

Where nobody gave a socket (a supervisord, a pod, a shell) nothing is sent. A program that is not well sends nothing
either, and systemd starts it anew after WATCHDOG_USEC.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

log = logging.getLogger(__name__)

BEATS = 4
"""How often in the time that systemd waits: one or two may be late."""
EVERY_S = 15.0
"""Seconds between two states where systemd waits for none."""


@contextmanager
def heartbeat(
    alive: Callable[[], str | None],
    ready: Callable[[], str | None],
    environ: Mapping[str, str] = os.environ,
) -> Iterator[None]:
    """Keep systemd informed while the block runs.

    `alive` says why the program has to be started anew, or None: then the heart beats. `ready` says what it waits for,
    or None; a person reads that in `systemctl status`. READY=1 is the first beat: a program that waits for its broker
    has started, and is not started again for that.
    """
    address = environ.get("NOTIFY_SOCKET")
    if not address:
        yield
        return
    microseconds = int(environ.get("WATCHDOG_USEC") or 0)
    every_s = microseconds / 1e6 / BEATS if microseconds else EVERY_S
    ended = threading.Event()

    def beat() -> None:
        state = "READY=1\n"
        while True:
            problem = alive()
            if problem is None:
                _send(address, f"{state}WATCHDOG=1\nSTATUS={_line(ready() or 'ok')}")
                state = ""
            else:
                _send(address, f"STATUS={_line(problem)}")
            if ended.wait(every_s):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _send(address, "STOPPING=1")


def _line(text: str) -> str:
    return " ".join(text.split())


def _send(address: str, state: str) -> None:
    # An address that begins with @ is in no directory.
    place = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        # systemd that takes nothing must not hold up the stop.
        connection.settimeout(1.0)
        try:
            connection.sendto(state.encode(), place)
        except OSError as error:
            log.warning("systemd cannot be told %s: %s", state.splitlines()[0], error)
