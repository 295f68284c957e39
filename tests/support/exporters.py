"""HTTP servers that speak as exporters do: a test sets what they answer, lets them hang, or ends them."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from tests.support.waiting import free_port


class Exporter:
    """Answers every request with `status`, `content_type` and `text`; with `hang` it takes the request and is silent.

    A `text` that is a function is asked anew each time, as counters need it.

    `requests` are the paths that were asked for, `authorizations` the credentials that came along.
    """

    def __init__(
        self,
        text: str | Callable[[], str] = "",
        *,
        status: int = 200,
        content_type: str = "text/plain; version=0.0.4",
    ) -> None:
        self.text = text
        self.status = status
        self.content_type = content_type
        self.hang = False
        self.requests: list[str] = []
        self.authorizations: list[str | None] = []
        self.address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.address}"
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen on the address, the same one after each stop."""
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                exporter._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        host, _, port = self.address.partition(":")
        self._released.clear()
        self._server = ThreadingHTTPServer((host, int(port)), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._released.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(request.path)
        self.authorizations.append(request.headers["Authorization"])
        if self.hang:
            self._released.wait(60)
            return
        body = (self.text() if callable(self.text) else self.text).encode()
        request.send_response(self.status)
        request.send_header("Content-Type", self.content_type)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
