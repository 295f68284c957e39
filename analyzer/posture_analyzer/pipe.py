"""What the analyzer and its sandbox tell each other by: a JSON object and some bytes at a time, through a socket."""

import json
import socket
import struct
from typing import Any

_LENGTHS = struct.Struct("=QQ")


class Pipe:
    """One end. Its methods raise EOFError or OSError where the other end is gone, TimeoutError where it is silent."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream

    def patience(self, seconds: float) -> None:
        """Wait no longer than that for each piece of a message."""
        self._stream.settimeout(seconds)

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def send(self, about: dict[str, Any], data: bytes = b"") -> None:
        """Send an object and bytes."""
        header = json.dumps(about).encode()
        self._stream.sendall(_LENGTHS.pack(len(header), len(data)) + header)
        self._stream.sendall(data)

    def receive(self, *, longest: int) -> tuple[dict[str, Any], bytearray]:
        """Return the next object and bytes; raises ValueError where they make no sense or are longer than that."""
        lengths = _LENGTHS.unpack(self._exactly(_LENGTHS.size))
        if max(lengths) > longest:
            raise ValueError(f"a message of {max(lengths)} bytes")
        try:
            about = json.loads(self._exactly(lengths[0]))
        except RecursionError:
            raise ValueError("an object nested too deep") from None
        if not isinstance(about, dict):
            raise ValueError("not an object")  # noqa: TRY004  (the other end's fault)
        return about, self._exactly(lengths[1])

    def _exactly(self, size: int) -> bytearray:
        received = bytearray(size)
        missing = memoryview(received)
        while missing:
            count = self._stream.recv_into(missing)
            if not count:
                raise EOFError
            missing = missing[count:]
        return received
