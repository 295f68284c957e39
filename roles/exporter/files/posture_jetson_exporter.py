# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prometheus exporter of a Jetson's GPU load, read from sysfs at each scrape.

Standard library only, Python 3.8 or later: it runs on the board's own Python. A load that cannot be read has no
sample: an idle GPU and an unknown one are different things.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# The GPU's device: any board's names, then the chips of TK1, Nano and TX1, TX2, Xavier, Orin, Thor.
DEVICES = ("gpu.0", "*.gpu", "gk20a.0", "*.gk20a", "*.gm20b", "*.gp10b", "*.gv11b", "*.ga10b", "*.gb10b")
# Where JetPack 4 to 7 keep it. The first file that is there counts: others are links to the same device.
PLACES = (
    "devices/{}/load",
    "devices/platform/{}/load",
    "devices/platform/bus@0/{}/load",
    "devices/platform/host1x/{}/load",
    "devices/*.host1x/{}/load",
    "class/devfreq/{}/device/load",
)
PATTERNS = (*(place.format(device) for place in PLACES for device in DEVICES), "class/devfreq/gpu-gpc-*/device/load")
READ_TIMEOUT_S = 1.0
CONNECTIONS = 200  # open at a time; one more closes the oldest
ACCEPTED_AT_ONCE = 5
CONNECTION_S = 10.0  # in which a connection has to send its request
REQUEST_BYTES = 8192

log = logging.getLogger("posture-jetson-exporter")


class NoLoadError(Exception):
    """The GPU load is not known; the message names the file and the cause."""


def find_load_file(sysfs: Path) -> Path:
    """Return the GPU's load file below `sysfs`. It may appear long after the boot: nobody keeps the answer."""
    for pattern in PATTERNS:
        for path in sorted(sysfs.glob(pattern)):
            return path
    raise NoLoadError(f"there is no GPU load file below {sysfs}: none of {', '.join(PATTERNS)}")


def read_percent(path: Path) -> float:
    """Return the GPU load in percent from a file that holds permille."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise NoLoadError(f"{path} cannot be read: {error}") from None
    if not text.isdigit() or len(text) > 4 or int(text) > 1000:
        raise NoLoadError(f"{path} holds {text[:40]!r}, not a number from 0 to 1000")
    return int(text) / 10


def metric_name(model: str) -> str:
    """Return the name by which the lab's queries know the GPU load of a board with this device tree model.

    An AGX Orin counts as AGX: the lab's AGX has always been asked for `jetson_gpu_usage_percent`.
    """
    words = model.lower().replace("-", " ").split()
    return "jetson_orin_gpu_load_percent" if "orin" in words and "agx" not in words else "jetson_gpu_usage_percent"


class Exporter:
    """The page that Prometheus scrapes. A driver that hangs in a read costs one thread, and no scrape."""

    def __init__(self, sysfs: Path, *, name: str, model: str) -> None:
        self._sysfs, self._name, self._model = sysfs, name, model
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._path = sysfs
        self._load: float | NoLoadError = NoLoadError("not read yet")
        self._logged = ""

    def page(self) -> str:
        """Return the metrics in Prometheus' text format, after READ_TIMEOUT_S at the latest."""
        model = self._model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        info = f'posture_jetson_exporter_info{{model="{model}"}} 1\n'
        with self._lock:
            if self._reader is None or not self._reader.is_alive():
                self._reader = threading.Thread(target=self._read, daemon=True)
                self._reader.start()
                self._reader.join(READ_TIMEOUT_S)
            hangs = NoLoadError(f"{self._path} cannot be read: no answer in {READ_TIMEOUT_S:g} s")
            load = hangs if self._reader.is_alive() else self._load
            message = f"GPU load: {load}" if isinstance(load, NoLoadError) else f"{self._name} is known"
            if message != self._logged:  # not the same line at each scrape
                log.info(message)
                self._logged = message
        if isinstance(load, NoLoadError):
            return f"{info}posture_jetson_exporter_up 0\n"
        return f"{info}posture_jetson_exporter_up 1\n# TYPE {self._name} gauge\n{self._name} {load}\n"

    def _read(self) -> None:
        self._load = NoLoadError("reading it failed")  # never the value of the scrape before
        try:
            self._path = find_load_file(self._sysfs)
            self._load = read_percent(self._path)
        except NoLoadError as error:
            self._load = error


class Server:
    """Serves the page over HTTP, whatever connections that say nothing or very little do beside it."""

    def __init__(self, page: Callable[[], str]) -> None:
        self._page = page
        self._open: dict[asyncio.StreamWriter, None] = {}  # the oldest first

    async def run(self, listener: socket.socket) -> None:
        """Serve until the process ends."""
        server = await asyncio.start_server(self._serve, sock=listener, backlog=ACCEPTED_AT_ONCE, limit=REQUEST_BYTES)
        listener.listen(1024)  # asyncio's backlog is both, and more may wait than are taken at once
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = None
        if len(self._open) > CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        try:
            with suppress(asyncio.TimeoutError, asyncio.LimitOverrunError, EOFError, OSError):
                request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), CONNECTION_S)
                writer.write(await self._answer(request))
        finally:
            self._open.pop(writer, None)
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        found = request.startswith((b"GET /metrics ", b"GET /metrics?"))
        page = await asyncio.get_running_loop().run_in_executor(None, self._page) if found else "see /metrics\n"
        body = page.encode()
        head = (
            f"HTTP/1.1 {'200 OK' if found else '404 Not Found'}",
            "Content-Type: text/plain; version=0.0.4; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        return "".join(f"{line}\r\n" for line in (*head, "")).encode() + body


def main() -> None:
    """Serve until SIGTERM ends the process."""
    parser = argparse.ArgumentParser(description="Publishes a Jetson's GPU load for Prometheus.")
    parser.add_argument("--listen", default="127.0.0.1:9401", help="address:port")
    parser.add_argument("--board", choices=["auto", "orin", "other"], default="auto", help="auto: by its model")
    parser.add_argument("--sysfs-root", type=Path, default=Path("/sys"))
    parser.add_argument("--device-tree", type=Path, default=Path("/proc/device-tree"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        model = (options.device_tree / "model").read_bytes().decode(errors="replace").strip("\0 \n")
    except OSError:
        model = ""
    name = metric_name(model if options.board == "auto" else options.board)
    exporter = Exporter(options.sysfs_root, name=name, model=model)

    host, _separator, port = options.listen.rpartition(":")
    host = host.strip("[]")
    try:
        listener = socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, ValueError, OverflowError) as error:
        parser.exit(78, f"cannot listen on {options.listen}: {error}. Choose another address or port with --listen.\n")
    log.info("%s of %s on http://%s/metrics", name, model or "a board without a model", options.listen)
    asyncio.run(Server(exporter.page).run(listener))


if __name__ == "__main__":
    main()
