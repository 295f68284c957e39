"""A server that speaks PostgreSQL's protocol as far as its refusal: for words and states that no server here says."""

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104


class Refuser:
    """Answers every start-up message with one error, while the `with` block runs."""

    def __init__(self, state: str, message: str) -> None:
        fields = (("S", "FATAL"), ("V", "FATAL"), ("C", state), ("M", message))
        body = b"".join(kind.encode() + text.encode() + b"\0" for kind, text in fields) + b"\0"
        self._answer = b"E" + struct.pack("!I", len(body) + 4) + body
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.asked = 0
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError, struct.error):
                    self._refuse(connection)

    def _refuse(self, connection: socket.socket) -> None:
        while True:
            length, code = struct.unpack("!II", connection.recv(8, socket.MSG_WAITALL))
            connection.recv(length - 8, socket.MSG_WAITALL) if length > 8 else b""
            if code not in {_SSL_REQUEST, _GSS_REQUEST}:
                break
            connection.sendall(b"N")
        self.asked += 1
        connection.sendall(self._answer)
