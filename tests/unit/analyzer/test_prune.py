"""What `posture-analyzer prune` removes, and what it leaves."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from posture_analyzer.prune import first_kept_minute, prune

NOW = 1_800_000_000
DAY = 86_400


def picture(
    images_dir: Path, name: str, *, age: float, size: int = 10, folder: str = "analyzed_images_from_pi1"
) -> Path:
    path = images_dir / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    os.truncate(path, size)
    os.utime(path, (NOW - age, NOW - age))
    return path


@given(
    st.dictionaries(st.integers(NOW // 60 - 10_000, NOW // 60), st.integers(0, 100)),
    st.integers(0, 8),
    st.integers(0, 500),
)
def test_what_is_kept_is_young_and_fits_and_no_more_goes_than_must(
    sizes: dict[int, int], days: int, keep_bytes: int
) -> None:
    first = first_kept_minute(sizes, now=NOW, keep_days=days, keep_bytes=keep_bytes)

    oldest = (NOW - days * DAY) // 60 if days else 0
    assert sum(size for minute, size in sizes.items() if minute >= first) <= keep_bytes
    one_more = sum(size for minute, size in sizes.items() if minute >= max(oldest, first - 1))
    assert first <= oldest or one_more > keep_bytes


def test_old_ones_go_and_the_newest_stays_however_old(tmp_path: Path) -> None:
    old, newest = picture(tmp_path, "a.jpg", age=40 * DAY), picture(tmp_path, "b.jpg", age=35 * DAY)
    letter = picture(tmp_path, "pi1-0.json", age=40 * DAY, folder="dead-letters")

    assert prune(tmp_path, now=NOW, keep_days=30, keep_bytes=1000).removed == 2
    assert (old.exists(), letter.exists(), newest.exists()) == (False, False, True)


def test_links_parts_and_other_files_are_left(tmp_path: Path) -> None:
    images, other = tmp_path / "images", tmp_path / "other"
    images.mkdir()
    other.mkdir()
    outside = picture(other, "x.jpg", age=90 * DAY)
    (images / "analyzed_images_from_pi2").symlink_to(outside.parent)
    part, foreign = picture(images, ".a.jpg.part", age=90 * DAY), picture(images, "a.txt", age=90 * DAY)
    picture(images, "new.jpg", age=0)

    assert prune(images, now=NOW, keep_days=1, keep_bytes=1000).removed == 0
    assert all(path.exists() for path in (outside, part, foreign))


def test_a_size_is_never_passed_and_the_newest_stay(tmp_path: Path) -> None:
    paths = [picture(tmp_path, f"{age}.jpg", age=age, size=1000) for age in range(2000)]

    pruned = prune(tmp_path, now=NOW, keep_days=0, keep_bytes=1_000_000)

    assert pruned.left_bytes == sum(path.stat().st_size for path in paths if path.exists()) <= 1_000_000
    assert pruned.left_bytes > 900_000
    assert all(path.exists() for path in paths[:900])
    assert prune(tmp_path, now=NOW, keep_days=0, keep_bytes=1_000_000).removed == 0


def test_no_letter_goes_for_its_size(tmp_path: Path) -> None:
    letter = picture(tmp_path, "pi1-0.json", age=DAY, folder="dead-letters", size=2000)
    old, new = picture(tmp_path, "a.jpg", age=2 * DAY, size=2000), picture(tmp_path, "b.jpg", age=0, size=600)

    assert prune(tmp_path, now=NOW, keep_days=0, keep_bytes=1000).removed == 1
    assert (letter.exists(), old.exists(), new.exists()) == (True, False, True)


def test_a_folder_that_is_long_empty_goes_and_a_new_one_stays(tmp_path: Path) -> None:
    long_empty, new = tmp_path / "analyzed_images_from_pi1", tmp_path / "analyzed_images_from_pi2"
    for folder, age in ((long_empty, DAY), (new, 0)):
        folder.mkdir()
        os.utime(folder, (NOW - age, NOW - age))

    prune(tmp_path, now=NOW, keep_days=1, keep_bytes=0)

    assert (long_empty.exists(), new.exists()) == (False, True)
