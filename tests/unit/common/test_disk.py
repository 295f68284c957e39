"""The floor of free space: how it is written, what it means on a disk, and what is said under it."""

import os
from pathlib import Path

import pytest
from posture_common import disk

GB = 10**9


@pytest.mark.parametrize(
    ("text", "total", "expected"),
    [
        ("5%", 200 * GB, 10 * GB),
        ("2GB", 200 * GB, 2 * GB),
        ("5% or 2GB", 200 * GB, 2 * GB),
        ("5% or 2GB", 32 * GB, 1.6 * GB),
        ("2 GB or 5 %", 32 * GB, 1.6 * GB),
        ("0.5%", 200 * GB, GB),
        ("1500MB", 200 * GB, 1.5 * GB),
        ("1TB", 200 * GB, 1000 * GB),
        ("1048576", 200 * GB, 1048576),
        ("0", 200 * GB, 0),
    ],
)
def test_a_floor_is_the_smaller_of_what_is_written(text: str, total: int, expected: float) -> None:
    assert disk.floor(text).of(total) == expected


@pytest.mark.parametrize("text", ["", "much", "-1", "5 percent", "100%", "5% 2GB", "5% or", "2gb", "1e9", "5%%"])
def test_what_is_no_floor_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected free space such as 5%, 2GB"):
        disk.floor(text)


def test_the_default_leaves_a_large_disk_and_a_small_card_usable() -> None:
    assert [disk.DEFAULT_FLOOR.of(total * GB) for total in (32, 1000)] == [1.6 * GB, 2 * GB]


def test_a_disk_under_its_floor_is_told_with_path_free_space_floor_and_next_step(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    room = disk.room(tmp_path, disk.floor("99.99%"))
    assert room.lacks()
    assert room.total == total
    assert abs(room.free - free) < GB
    told = disk.Room(Path("/data"), free=1_234_567_890, total=252 * GB, floor=2 * GB, floor_text="5% or 2GB")
    assert str(told) == (
        "the disk of /data has 1.23 GB of 252 GB free, less than the floor of 2 GB (POSTURE_DISK_FLOOR=5% or 2GB): "
        "free space on it, or lower the floor; until then images wait where they are"
    )
    assert "1.23" not in told.shortage


def test_what_is_about_to_be_written_counts() -> None:
    room = disk.Room(Path("/data"), free=100, total=1000, floor=50, floor_text="50")
    assert (room.lacks(50), room.lacks(51)) == (False, True)
