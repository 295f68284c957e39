"""Connections that keep a server busy with nothing: silent ones, and slow ones that never finish their request."""

import resource
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

LONGEST_ANSWER_S = 1.0


@contextmanager
def crowd(port: int, *, silent: int = 2000, slow: int = 200) -> Iterator[None]:
    """Hold connections to the loopback port open while the block runs.

    A slow one sends a byte a second; where the server closes it there is another at once.
    """
    _allow_files(silent + slow + 500)
    stop = threading.Event()
    with ExitStack() as stack:
        for _ in range(silent):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        slow_ones = [_begun(port) for _ in range(slow)]
        thread = threading.Thread(target=_drip, args=(port, slow_ones, stop))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            for connection in slow_ones:
                connection.close()


def assert_answers(port: int, path: str) -> None:
    """Fail unless the loopback port answers the path with 200 within `LONGEST_ANSWER_S`."""
    began = time.monotonic()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{path}: {error.code} {error.read().decode()}") from None
    took = time.monotonic() - began
    assert took < LONGEST_ANSWER_S, f"{path} took {took:.1f} s"


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _begun(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    with suppress(OSError):
        connection.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
    return connection


def _drip(port: int, connections: list[socket.socket], stop: threading.Event) -> None:
    while not stop.wait(1):
        for number, connection in enumerate(connections):
            try:
                connection.sendall(b"a")
            except OSError:
                connection.close()
                with suppress(OSError):
                    connections[number] = _begun(port)
