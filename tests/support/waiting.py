"""Waiting for a condition instead of sleeping for a guess."""

import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], *, timeout: float, describe: str | Callable[[], str], pause: float = 0.02
) -> T:
    """Return the condition's first true value; after `timeout` seconds raise TimeoutError with what was awaited."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            what = describe if isinstance(describe, str) else describe()
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(pause)


def free_port() -> int:
    """Return a loopback port that nobody listens on.

    It lies below the range that the kernel gives to outgoing connections: a client that keeps trying a stopped server's
    port in that range ends up connected to itself.
    """
    while True:
        port = random.randint(15000, 30000)  # noqa: S311 - not a secret, only spread
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def accepts(port: int) -> bool:
    """Whether something accepts connections on this loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
