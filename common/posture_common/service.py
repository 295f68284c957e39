"""The life of a service around its work: log lines, the stop signal, and /metrics, /healthz, /readyz on one port."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

EXIT_REFUSED = 78
"""Exit code (EX_CONFIG) when starting again without a change cannot help."""


class LastingError(Exception):
    """What only a person can put right; the message names the object, the cause and the next step."""


class FailedError(Exception):
    """What ends the program with a message and may work when it is started anew, here or elsewhere."""


def set_up_logging(level: str) -> None:
    """Log one line an event to standard error: time, level, module, text."""
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )


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


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # WSGIServer would look up its own name in the DNS, which can take seconds in a lab without one.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.socket.getsockname()[1]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class names it)
        log.debug(format, *args)


@contextmanager
def status_server(
    host: str, port: int, *, alive: Callable[[], str | None], ready: Callable[[], str | None]
) -> Iterator[None]:
    """Serve /metrics, /healthz and /readyz while the block runs.

    `alive` and `ready` say what is wrong (answered as 503 with that text) or None. Raises `LastingError` where the
    port cannot be had.
    """
    metrics = make_wsgi_app()

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        check = {"/healthz": alive, "/readyz": ready}.get(path)
        if check is None:
            status, text = HTTPStatus.NOT_FOUND, "try /metrics, /healthz or /readyz"
        elif (problem := check()) is not None:
            status, text = HTTPStatus.SERVICE_UNAVAILABLE, problem
        else:
            status, text = HTTPStatus.OK, "ok"
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    try:
        server = make_server(host, port, app, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        raise LastingError(
            f"cannot listen on {host}:{port} for /metrics: {error.strerror}; "
            "stop what uses the port or set POSTURE_HTTP_PORT"
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
