"""What the parts of the bench measure in: brokers, a database, and pictures of a camera's size."""

import functools
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import psycopg

from tests.support.brokers import Broker
from tests.support.cameras import Camera, open_session
from tests.support.databases import Cluster, Database
from tests.support.images import Shot, numbered, photograph
from tests.support.mosquitto import NEW, Mosquitto

PI = "pi1"


@dataclass(frozen=True, kw_only=True)
class Lab:
    """The servers of a run."""

    cluster: Cluster
    mosquittos: Mapping[str, Mosquitto]

    @contextmanager
    def queued(self, shots: list[Shot], *, raw: bool = False) -> Iterator[tuple[Broker, Database, Path]]:
        """Yield a broker in whose session of stream pi1 the shots wait, a fresh database and a directory."""
        with (
            TemporaryDirectory(prefix="posture-bench-") as name,
            Broker(self.mosquittos[NEW], Path(name) / "broker", pis=[PI]) as broker,
            self.cluster.database() as database,
        ):
            open_session(broker, PI)
            with Camera(broker, PI) as camera:
                camera.send(shots, raw=raw, timeout=300)
            yield broker, database, Path(name)


@functools.cache
def pictures(width: int, height: int) -> list[bytes]:
    """Return eight different JPEGs of people in that size, with a camera's noise: else they would compress too well."""
    noise = np.random.default_rng(1).normal(0, 5, (height, width, 3))
    encoded = []
    for name in ("camera", "astronaut"):
        original = cv2.imdecode(np.frombuffer(photograph(name, size=(width, height)), np.uint8), cv2.IMREAD_COLOR)
        for picture in (original, original[:, ::-1]):
            for brightness in (0.9, 1.1):
                pixels = np.clip(picture * brightness + noise, 0, 255).astype(np.uint8)
                encoded.append(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
    return encoded


def shots(count: int, *, width: int, height: int) -> list[Shot]:
    """Return that many different shots of people."""
    originals = pictures(width, height)
    return [Shot(data=numbered(originals[number % len(originals)], number)) for number in range(count)]


def watch_rate(
    database: Database, count: int, *, process: subprocess.Popen[bytes], log: Path, timeout: float = 300
) -> float:
    """Return images/s between the first tenth of the rows and the last row, as the process commits them."""
    deadline = time.monotonic() + timeout
    warm: tuple[float, int] | None = None
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute("SELECT count(*) FROM posture_results").fetchone()
            now, done = time.monotonic(), row[0] if row else 0
            if warm is None and done >= count // 10:
                warm = now, done
            if warm and done >= count:
                return float(done - warm[1]) / (now - warm[0])
            if process.poll() is not None:
                raise RuntimeError(f"the process ended with {process.returncode}: {log.read_text()[-2000:]}")
            time.sleep(0.02)
    raise TimeoutError(f"not {count} rows within {timeout:g} s: {log.read_text()[-2000:]}")
