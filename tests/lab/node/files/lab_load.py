#!/usr/bin/python3
"""Plays a machine's load: the GPU as a Jetson's exporter publishes it, processor and memory through node_exporter.

/etc/posture-lab/load.json: {"metric": "jetson_gpu_usage_percent", "gpu": 70, "cpu": 20, "memory": 30}, in percent.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SETTINGS = Path("/etc/posture-lab/load.json")
# What node_exporter takes for /proc: all of it, but for two files that are written so often that their counters are of
# the moment of reading: half a second old, they would look like another load.
PROC = Path("/run/posture-lab/proc")
WRITTEN_EVERY_S = 0.02
MEMORY_KB = 8 * 2**20
CORES = 4
TICKS = os.sysconf("SC_CLK_TCK")


class Processor:
    """The counters of a processor that has the set load from one reading to the next."""

    def __init__(self) -> None:
        self._busy = self._idle = 0.0
        self._before = time.monotonic()

    def stat(self) -> str:
        """Return them as /proc/stat has them."""
        share = json.loads(SETTINGS.read_text())["cpu"] / 100
        passed = time.monotonic() - self._before
        self._before += passed
        self._busy += passed * share * TICKS
        self._idle += passed * (1 - share) * TICKS
        return "".join(f"cpu{core} {self._busy:.0f} 0 0 {self._idle:.0f} 0 0 0 0 0 0\n" for core in range(CORES))


def meminfo() -> str:
    """Return the memory as /proc/meminfo has it."""
    free = MEMORY_KB * (1 - json.loads(SETTINGS.read_text())["memory"] / 100)
    return f"MemTotal: {MEMORY_KB} kB\nMemFree: {free:.0f} kB\nMemAvailable: {free:.0f} kB\n"


def write(name: str, content: str) -> None:
    """Replace a file at once: several readers may be at it."""
    part = PROC / f".{name}.part"
    part.write_text(content)
    part.replace(PROC / name)


def keep_written() -> None:
    """Write both files, for ever."""
    processor = Processor()
    while True:
        write("stat", processor.stat())
        write("meminfo", meminfo())
        time.sleep(WRITTEN_EVERY_S)


def make_proc() -> None:
    """Fill the directory."""
    PROC.mkdir(parents=True)
    for name in ["1", *(path.name for path in Path("/proc").iterdir() if not path.name.isdigit())]:
        if name not in {"stat", "meminfo"}:
            (PROC / name).symlink_to(f"/proc/{name}")
    threading.Thread(target=keep_written, daemon=True).start()


class Exporter(BaseHTTPRequestHandler):
    """Answers every path with the GPU's load, or with nothing where the machine has none."""

    def do_GET(self) -> None:
        """Send the metric."""
        load = json.loads(SETTINGS.read_text())
        text = f"{load['metric']} {load['gpu']}\n" if "gpu" in load else ""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing: Prometheus asks every 2 s."""


if __name__ == "__main__":
    make_proc()
    ThreadingHTTPServer(("", int(sys.argv[1])), Exporter).serve_forever()
