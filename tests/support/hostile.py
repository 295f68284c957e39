"""What one Pi's password is good for: images and messages that are meant to stop a stream.

Each maker returns the payload and the user properties of one message; none of them is like another of the same run.
"""

import base64
import io
import itertools
import json
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from PIL import Image

from tests.support import programs
from tests.support.brokers import Broker
from tests.support.databases import Database
from tests.support.images import numbered, photograph, pillow, png_with_header
from tests.support.programs import Program
from tests.support.waiting import wait_until

MB = 2**20
LARGEST_SIDE = 4096  # POSTURE_MAX_PIXELS is 4096 * 4096


@dataclass(frozen=True)
class Attack:
    """One hostile message."""

    payload: bytes
    properties: list[tuple[str, str]]
    qos: int = 1
    retain: bool = False


def long_chunk() -> bytes:
    """Return 49 bytes of PNG whose data chunk says that it is 4 GB long."""
    return png_with_header(40, 40)[:33] + struct.pack(">I", 0xFFFFFFF0) + b"IDAT" + os.urandom(8)


def lying_png() -> bytes:
    """Return a PNG whose data is short for its size: a bomb in the other direction."""
    return numbered_png(png_with_header(LARGEST_SIDE, LARGEST_SIDE))


def zlib_bomb() -> bytes:
    """Return a PNG of a few kilobytes that decodes to the largest picture there may be."""
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(1 + 3 * LARGEST_SIDE)) for _ in range(LARGEST_SIDE)) + rows.flush()
    header = struct.pack(">IIBBBBB", LARGEST_SIDE, LARGEST_SIDE, 8, 2, 0, 0, 0)
    return numbered_png(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b""))


def animated_webp() -> bytes:
    """Return a hundred bytes of animation on a canvas of 49 million pixels."""
    frame = pillow(Image.new("RGB", (8, 8), tuple(os.urandom(3))), "WEBP")
    body = frame[12:]
    anmf = struct.pack("<I", 0)[:3] * 2 + struct.pack("<I", 7)[:3] * 2 + struct.pack("<I", 1)[:3] + b"\0" + body
    canvas = struct.pack("<I", 6999)[:3] * 2
    chunks = _riff(b"VP8X", bytes([2, 0, 0, 0]) + canvas) + _riff(b"ANIM", bytes(6)) + _riff(b"ANMF", anmf) * 2
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def many_scans() -> bytes:
    """Return a progressive JPEG of the largest size with 37,000 empty scans."""
    buffer = io.BytesIO()
    Image.new("L", (LARGEST_SIDE, LARGEST_SIDE), 128).save(buffer, "JPEG", progressive=True)
    jpeg = numbered(buffer.getvalue(), int.from_bytes(os.urandom(4)))
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * 400 + jpeg[-2:]


def heavy_jpeg() -> bytes:
    """Return a real picture of the largest size, as slow and large to decode as they get."""
    return numbered(_heavy(), int.from_bytes(os.urandom(4)))


def _heavy_picture() -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 255, (512, 512, 3), np.uint8)
    return Image.fromarray(np.tile(noise, (LARGEST_SIDE // 512, LARGEST_SIDE // 512, 1)))


_HEAVY: list[bytes] = []


def _heavy() -> bytes:
    if not _HEAVY:
        _HEAVY.append(pillow(_heavy_picture(), "JPEG", progressive=True, subsampling=0, quality=60))
    return _HEAVY[0]


def damaged_photograph() -> bytes:
    """Return a photograph with bytes changed at random."""
    data = bytearray(photograph("camera"))
    for place in np.random.default_rng(int.from_bytes(os.urandom(4))).integers(20, len(data), 30):
        data[place] ^= 0x5A
    return bytes(data)


def garbage(size: int) -> bytes:
    """Return base64 of noise."""
    return base64.b64encode(os.urandom(size))


def numbered_png(png: bytes) -> bytes:
    """Return the same picture as other bytes."""
    return png[:-12] + _chunk(b"tEXt", b"Comment\0" + os.urandom(8).hex().encode()) + png[-12:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def properties_flood(count: int, size: int) -> Attack:
    """Return a message with so many user properties of that many bytes."""
    return Attack(b"x", [("a", "b" * size)] * count)


KINDS: dict[str, Callable[[], Attack]] = {
    "a chunk of 4 GB in 49 bytes": lambda: Attack(long_chunk(), []),
    "a PNG that ends early": lambda: Attack(lying_png(), []),
    "a zlib bomb": lambda: Attack(zlib_bomb(), []),
    "an animated canvas": lambda: Attack(animated_webp(), []),
    "thousands of scans": lambda: Attack(many_scans(), []),
    "the heaviest real picture": lambda: Attack(heavy_jpeg(), []),
    "a damaged photograph": lambda: Attack(damaged_photograph(), []),
    "8 MB of noise": lambda: Attack(garbage(6 * MB), []),
    "many user properties": lambda: properties_flood(80_000, 1),
    "large user properties": lambda: properties_flood(20, 60_000),
    "an image id of 60 KB": lambda: Attack(b"x", [("image_id", "7" * 60_000)]),
    "a name of 60 KB": lambda: Attack(long_chunk(), [("filename", "\U0001f600" * 15_000)]),
    "an impossible time": lambda: Attack(long_chunk(), [("captured_at", "9999-99-99T99:99:99Z")]),
    "empty": lambda: Attack(b"", []),
    "3 bytes": lambda: Attack(os.urandom(3), []),
    "a million braces": lambda: Attack(b"[" * MB + os.urandom(2), []),
    "JSON": lambda: Attack(json.dumps({"image": os.urandom(3).hex()}).encode(), []),
    "QoS 0": lambda: Attack(garbage(MB), [], qos=0),
    "retained": lambda: Attack(long_chunk(), [], retain=True),
}


class Attacker:
    """Sends hostile messages of every kind in turn, `rate` a second, with one Pi's password, while the block runs."""

    def __init__(self, broker: Broker, pi_id: str, *, rate: float, kinds: Iterator[str] | None = None) -> None:
        self.sent: dict[str, int] = {}
        self._broker = broker
        self._pi_id = pi_id
        self._rate = rate
        self._kinds = kinds or itertools.cycle(KINDS)
        self._failures: list[Exception] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="attacker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(60)
        assert not self._failures, self._failures

    def wait(self, seconds: float) -> None:
        """Attack for so long."""
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._attack()
        except Exception as error:  # told when the block ends
            self._failures.append(error)

    def _attack(self) -> None:
        client = Client(CallbackAPIVersion.VERSION2, self._pi_id, protocol=MQTTProtocolVersion.MQTTv5)
        client.username_pw_set(self._pi_id, self._broker.passwords[self._pi_id])
        client.max_inflight_messages_set(1000)
        client.connect("127.0.0.1", self._broker.pi_port)
        client.loop_start()
        began = time.monotonic()
        for number, kind in enumerate(self._kinds):
            if self._ending.wait(max(0.0, began + number / self._rate - time.monotonic())):
                break
            attack = KINDS[kind]()
            properties = Properties(PacketTypes.PUBLISH)
            if attack.properties:
                properties.UserProperty = attack.properties
            with suppress(ValueError):  # larger than the broker takes
                client.publish(
                    f"images/{self._pi_id}", attack.payload, attack.qos, attack.retain, properties=properties
                )
                self.sent[kind] = self.sent.get(kind, 0) + 1
        client.disconnect()
        client.loop_stop()


@dataclass(frozen=True, kw_only=True)
class Siege:
    """What another camera and the analyzer went through."""

    sent: dict[str, int]
    rows: int
    lost: list[str]
    longest_gap_s: float
    peak_mb: float


def siege(
    broker: Broker, database: Database, directory: Path, *, seconds: float, rate: float, wrapper: Iterable[str] = ()
) -> Siege:
    """Let pi1 attack the stream `all` while pi2 publishes an image a second, and see what becomes of pi2's images.

    Raises AssertionError where the analyzer ended, TimeoutError where pi2's images do not all get their rows.
    """
    count = int(seconds)
    source = directory / "source"
    source.mkdir()
    person = photograph("camera", size=(640, 480))
    for number in range(count):
        (source / f"{number:05}.jpg").write_bytes(numbered(person, number))
    analyzer = programs.analyzer(broker, database, directory, stream="all", wrapper=wrapper, PASSES="2")
    camera = programs.publisher(broker, directory, pi_id="pi2", source=source, INTERVAL="1")
    with analyzer:
        analyzer.wait_ready()
        began = datetime.now(UTC)
        with camera, _Memory(analyzer) as memory:
            with Attacker(broker, "pi1", rate=rate) as attacker:
                attacker.wait(seconds)
                ended = datetime.now(UTC)
            wait_until(
                lambda: len(_rows(database)) >= count,
                timeout=120,
                describe=lambda: f"{count} rows of pi2, there are {len(_rows(database))}: {analyzer.output[-2000:]}",
                pause=1.0,
            )
            assert analyzer.process.poll() is None, analyzer.output[-3000:]
            assert camera.terminate() == 0
        assert analyzer.terminate() == 0
    rows = _rows(database)
    during = sorted(row["analyzed_time"] for row in rows if row["analyzed_time"] < ended)
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise([began, *during, ended])]
    return Siege(
        sent=attacker.sent,
        rows=len(rows),
        lost=sorted({path.name for path in source.iterdir()} - {row["filename"] for row in rows}),
        longest_gap_s=max(gaps),
        peak_mb=memory.peak_mb,
    )


def _rows(database: Database) -> list[dict[str, Any]]:
    return [row for row in database.rows() if row["pi_id"] == "pi2"]


class _Memory:
    """The most memory that a program and its sandboxes have together, looked at now and then."""

    def __init__(self, program: Program) -> None:
        self.peak_mb = 0.0
        self._program = program
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(0.1):
            pid = self._program.process.pid
            self.peak_mb = max(self.peak_mb, sum(map(_proportional_mb, [pid, *programs.children(pid)])))


def _proportional_mb(pid: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0
    return 0.0
