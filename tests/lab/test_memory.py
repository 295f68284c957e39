"""The largest images that are taken, all workers at once, in the memory that a Job has."""

import contextlib
import io
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from posture_analyzer.settings import AnalysisSettings
from posture_common.settings import MAX_IMAGE_BYTES

from tests.support import hostile, programs
from tests.support.brokers import Broker
from tests.support.cameras import Camera
from tests.support.databases import Database
from tests.support.images import Shot, exif_rotated, photograph, pillow
from tests.support.waiting import wait_until

MB = 2**20
GIB = 2**30  # what a Job had before its limit was worked out; less than it has now
SIDE = 4096


@dataclass(frozen=True)
class MemoryGroup:
    """A cgroup with a limit of memory, of either version."""

    directory: Path
    peak_file: str
    limit: int

    @property
    def peak(self) -> int:
        return int((self.directory / self.peak_file).read_text())

    @property
    def kills(self) -> int:
        events = next(
            file for name in ("memory.events", "memory.oom_control") if (file := self.directory / name).exists()
        )
        counts = dict(line.split() for line in events.read_text().splitlines())
        return int(counts["oom_kill"])

    @property
    def wrapper(self) -> list[str]:
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.directory)]


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    name = f"posture-test-{uuid.uuid4().hex[:8]}"
    first = Path("/sys/fs/cgroup/memory")
    if first.is_dir():
        directory, limit_file, peak_file = first / name, "memory.limit_in_bytes", "memory.max_usage_in_bytes"
    else:
        directory, limit_file, peak_file = Path("/sys/fs/cgroup") / name, "memory.max", "memory.peak"
    directory.mkdir()
    try:
        (directory / limit_file).write_text(str(limit))
        yield MemoryGroup(directory, peak_file, limit)
    finally:
        wait_until(lambda: not (directory / "cgroup.procs").read_text(), timeout=10, describe=f"{directory} is empty")
        directory.rmdir()


def large_photograph() -> Image.Image:
    picture = Image.open(io.BytesIO(photograph("camera"))).convert("RGB").resize((SIDE, SIDE))
    noise = np.random.default_rng(1).integers(-6, 6, (SIDE, SIDE, 1), dtype=np.int16)
    return Image.fromarray(np.clip(np.asarray(picture, np.int16) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def largest() -> dict[str, bytes]:
    picture = large_photograph()
    images = {
        "progressive JPEG with all colours": pillow(picture, "JPEG", progressive=True, subsampling=0, quality=90),
        "JPEG on its side": exif_rotated(pillow(picture, "JPEG", quality=90)),
        "PNG": pillow(picture.quantize(256).convert("RGB"), "PNG", compress_level=1),
        "WebP": pillow(picture, "WEBP", quality=80, method=0),
        "lossless WebP": pillow(picture.quantize(64).convert("RGB"), "WEBP", lossless=True, quality=0, method=0),
        "noise": hostile.heavy_jpeg(),
        "a picture and what makes it the largest": photograph("camera") + bytes(MAX_IMAGE_BYTES - 2 * MB),
    }
    assert all(len(image) <= MAX_IMAGE_BYTES for image in images.values()), {k: len(v) / MB for k, v in images.items()}
    assert AnalysisSettings().max_pixels == SIDE * SIDE
    return images


def test_the_largest_images_fit_the_jobs_memory(
    broker: Broker, database: Database, tmp_path: Path, largest: dict[str, bytes]
) -> None:
    shots = [Shot(data=image, filename=f"{name} {turn}") for turn in range(3) for name, image in largest.items()]
    with (
        memory_group(GIB) as group,
        programs.analyzer(broker, database, tmp_path, wrapper=group.wrapper, PASSES="2") as analyzer,
        Camera(broker, "pi1") as camera,
    ):
        analyzer.wait_ready()
        for shot in shots:
            camera.send([shot])
        wait_until(
            lambda: database.count() == len(shots),
            timeout=100,
            describe=lambda: f"{len(shots)} rows, there are {database.count()}: {analyzer.output[-2000:]}",
        )
        undecodable = {row["filename"] for row in database.rows() if row["posture_status"] == "Undecodable image"}
        assert not undecodable, analyzer.output
        assert group.kills == 0
        assert group.peak < 0.95 * group.limit
        print(f"peak {group.peak / MB:.0f} MB of {group.limit / MB:.0f}")
        assert analyzer.terminate() == 0
