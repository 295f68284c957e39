"""The life of a service around its work: log lines, the stop signal, and how it stands.

That is told on one port (/metrics, /healthz, /readyz), and to systemd (notify.py).
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client import make_wsgi_app
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import WSGITask
from waitress.wasyncore import close_all

from .log_lines import collapse
from .notify import heartbeat

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

CONNECTIONS = 100
"""Connections open at a time to /metrics, /healthz and /readyz; one more closes the oldest."""
CONNECTION_S = 10.0
"""Seconds in which a connection has to send its request and take the answer."""
REQUEST_BYTES = 8192

EXIT_REFUSED = 78
"""Exit code (EX_CONFIG) when starting again without a change cannot help."""


class LastingError(Exception):
    """What only a person can put right; the message names the object, the cause and the next step."""


class FailedError(Exception):
    """What ends the program with a message and may work when it is started anew, here or elsewhere."""


def set_up_logging(level: str) -> None:
    """Log one line an event to standard error: time, level, module, text; of many of a kind only the first ones."""
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    collapse(logging.getLogger().handlers[0])


class Stop:
    """A request to stop, which any thread can make, wait for, or be called on."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._requested.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Sleep until the stop is requested (True) or the time is over (False)."""
        return self._requested.wait(seconds)

    def request(self) -> None:
        """Ask everybody to stop."""
        with self._lock:
            self._requested.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` when the stop is requested while the block runs, or at once if it was already."""
        with self._lock:
            self._callbacks.append(callback)
            requested = self.requested
        if requested:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)


def delays(first_s: float = 0.2, longest_s: float = 5.0) -> Iterator[float]:
    """Yield the seconds to wait before each further try: doubling, then constant, for ever."""
    delay = first_s
    while True:
        yield delay
        delay = min(2 * delay, longest_s)


def stop_on_signals() -> Stop:
    """Return a `Stop` that SIGTERM and SIGINT request; a second signal ends the process at once.

    Call it before the first thread starts: the signals are blocked for every thread and awaited by one of their own,
    so that no lock can be held where they are handled. A thread that dies of an exception ends the process too: with
    one missing it would look alive and do nothing, and whoever supervises it starts it anew.
    """
    stop = Stop()
    threading.excepthook = _end_process
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def watch() -> None:
        log.info("%s: stopping", signal.Signals(signal.sigwait(signals)).name)
        stop.request()
        signal.sigwait(signals)
        os._exit(1)

    threading.Thread(target=watch, name="signals", daemon=True).start()
    return stop


def _end_process(death: threading.ExceptHookArgs) -> None:
    log.critical("thread %s died", death.thread and death.thread.name, exc_info=death.exc_value)
    os._exit(1)


class _OneRequest(WSGITask):  # type: ignore[misc]  # waitress is not annotated
    """Answers a request and ends its connection: requests in a row would pile their answers up in memory."""

    def start(self) -> None:
        self.request.headers["CONNECTION"] = "close"
        super().start()


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress is not annotated
    task_class = _OneRequest

    def handle_error(self) -> None:
        # A request that waitress cannot parse is somebody else's error: it costs its connection and no line of the log.
        log.debug("a connection to /metrics ended", exc_info=True)
        self.handle_close()


class _Server(TcpWSGIServer):  # type: ignore[misc]  # waitress is not annotated
    """Waitress, with bounds that hold against connections that say nothing or very little.

    Its own limit stops accepting, which keeps probes out, and its own timeout begins again at each byte.
    """

    channel_class = _Channel

    def handle_accept(self) -> None:
        super().handle_accept()
        if len(self.active_channels) > CONNECTIONS:
            oldest = next(iter(self.active_channels.values()))
            oldest.handle_close()

    def maintenance(self, now: float) -> None:
        for channel in self.active_channels.values():
            if channel.creation_time < now - CONNECTION_S:
                channel.will_close = True


@contextmanager
def status_server(
    host: str,
    port: int,
    *,
    alive: Callable[[], str | None],
    ready: Callable[[], str | None],
    note: Callable[[], str | None] = lambda: None,
) -> Iterator[None]:
    """Serve /metrics, /healthz and /readyz while the block runs, and tell systemd what the latter two say.

    `alive` and `ready` say what is wrong (answered as 503 with that text) or None; `note` says what a person should
    know although the program is ready, or None. Raises `LastingError` where the port cannot be had.
    """
    logging.getLogger("waitress").setLevel(logging.ERROR)  # It warns of each request that waits for a worker.
    server = _Server(
        _application(alive, ready, note),
        _sock=_listen(host, port),
        bind_socket=False,
        connection_limit=2 * CONNECTIONS,
        cleanup_interval=1,
        threads=2,
        max_request_header_size=REQUEST_BYTES,
        max_request_body_size=REQUEST_BYTES,
        asyncore_use_poll=True,
        log_socket_errors=False,
        ident=None,
    )
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    try:
        with heartbeat(alive, ready):
            yield
    finally:
        # Its workers first: they wake the loop through a pipe that the loop closes.
        server.task_dispatcher.shutdown()
        server.trigger.pull_trigger(lambda: close_all(server._map, ignore_all=True))
        thread.join()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return _bound(host, port)
    except OSError as error:
        raise LastingError(
            f"cannot listen on {host}:{port} for /metrics: {error.strerror}; "
            "stop what uses the port or set POSTURE_HTTP_PORT"
        ) from None


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket on the port of this address; `::` is every address, of IPv4 too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _application(
    alive: Callable[[], str | None], ready: Callable[[], str | None], note: Callable[[], str | None]
) -> "WSGIApplication":
    metrics = make_wsgi_app()

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        log.debug("asked for %r", path)
        if path == "/metrics":
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        check = {"/healthz": alive, "/readyz": ready}.get(path)
        if check is None:
            status, text = HTTPStatus.NOT_FOUND, "try /metrics, /healthz or /readyz"
        elif (problem := check()) is not None:
            status, text = HTTPStatus.SERVICE_UNAVAILABLE, problem
        else:
            status, text = HTTPStatus.OK, "; ".join(filter(None, ["ok", note() if check is ready else None]))
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    return application
