import errno
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posture_common import disk
from posture_common.service import LastingError
from posture_publisher.spool import DamagedError, DiskLowError, Picture, Spool, SpoolFullError

NOW = datetime(2026, 5, 4, 3, 2, 1, 500000, tzinfo=UTC)


def picture(data: bytes = b"bytes of a picture", *, filename: str = "camera.jpg") -> Picture:
    return Picture(image_id=str(uuid.uuid4()), captured_at=NOW, filename=filename, data=data)


@contextmanager
def spool_in(directory: Path, *, max_bytes: int = 10**6, pi_id: str = "pi1") -> Iterator[Spool]:
    with Spool(directory, max_bytes=max_bytes, pi_id=pi_id) as spool:
        yield spool


def images_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.image"))


@given(data=st.binary(max_size=3000), filename=st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_a_picture_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, data: bytes, filename: str) -> None:
    directory = tmp_path_factory.mktemp("spool")
    taken = replace(picture(data, filename=filename), rotate=270, clock="unsynchronised")
    with spool_in(directory) as spool:
        entry = spool.put(taken)
        assert spool.read(entry) == taken
    with spool_in(directory) as spool:
        assert spool.entries() == [entry]
        assert spool.read(entry) == taken


def test_it_counts_images_and_bytes_over_put_remove_and_restart(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        entries = [spool.put(picture(b"x" * size)) for size in (10, 200, 3000)]
        assert spool.remove(entries[1].image_id)
        assert not spool.remove(entries[1].image_id)
        assert spool.oldest() == entries[0]
    with spool_in(tmp_path) as spool:
        assert len(spool) == 2
        on_disk = sum((tmp_path / name).stat().st_size for name in images_in(tmp_path))
        assert spool.bytes == entries[0].size + entries[2].size == on_disk
        assert spool.entries() == [entries[0], entries[2]]


def test_numbers_grow_over_restarts_even_when_the_spool_is_empty(tmp_path: Path) -> None:
    numbers = []
    for _ in range(3):
        with spool_in(tmp_path) as spool:
            for _ in range(2):
                entry = spool.put(picture())
                numbers.append(entry.seq)
                spool.remove(entry.image_id)
    assert numbers == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("hint", [b"", b"garbage!!!!\n", b"000000000001\n"])
def test_a_lost_hint_does_not_repeat_the_number_of_a_spooled_image(tmp_path: Path, hint: bytes) -> None:
    with spool_in(tmp_path) as spool:
        last = [spool.put(picture()) for _ in range(5)][-1]
    (tmp_path / "sequence").write_bytes(hint)
    with spool_in(tmp_path) as spool:
        assert spool.put(picture()).seq == last.seq + 1


def test_a_picture_that_is_here_already_stays_one(tmp_path: Path) -> None:
    taken = picture()
    with spool_in(tmp_path) as spool:
        first = spool.put(taken)
    with spool_in(tmp_path) as spool:
        assert spool.put(taken) == first
        assert len(images_in(tmp_path)) == len(spool) == 1


def test_it_is_bounded(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        size = spool.put(picture(b"x" * 500)).size
        spool.remove(spool.entries()[0].image_id)
    with spool_in(tmp_path, max_bytes=2 * size) as spool:
        first = spool.put(picture(b"x" * 500))
        spool.put(picture(b"x" * 500))
        with pytest.raises(SpoolFullError, match="POSTURE_SPOOL_MAX_BYTES"):
            spool.put(picture(b"x" * 500))
        assert len(images_in(tmp_path)) == 2
        spool.remove(first.image_id)
        spool.put(picture(b"x" * 500))
        assert spool.bytes == 2 * size


class PowerCut(BaseException):
    """Ends the process where it stands."""


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> Callable[[], int]:
    """Let the disk fail at its step-th operation (open, write, flush, rename, flush of the directory)."""
    count = 0

    def failing(real: Callable[..., object]) -> Callable[..., object]:
        def operation(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                raise error
            return real(*args, **kwargs)

        return operation

    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(Path, "rename", failing(Path.rename))
    monkeypatch.setattr(os, "open", failing(os.open))
    monkeypatch.setattr(Path, "stat", failing(Path.stat))
    return lambda: count


@pytest.mark.parametrize("step", range(1, 6))
def test_a_crash_at_any_step_leaves_a_whole_picture_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    taken = picture(b"x" * 100_000)
    with spool_in(tmp_path) as spool:
        before = spool.put(picture())
        with monkeypatch.context() as patch:
            stop_at(patch, step, PowerCut())
            with pytest.raises(PowerCut):
                spool.put(taken)
    with spool_in(tmp_path) as spool:
        assert spool.entries()[0] == before
        found = [spool.read(entry) for entry in spool.entries()[1:]]
        renamed = step > 3
        assert found == ([taken] if renamed else [])
        assert not list(tmp_path.glob("*.part"))
        assert spool.put(picture()).seq > before.seq


@pytest.mark.parametrize("step", range(1, 6))
def test_an_error_of_the_disk_at_any_step_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with spool_in(tmp_path) as spool:
        before = spool.put(picture())
        taken = picture(b"x" * 100_000)
        with monkeypatch.context() as patch:
            stop_at(patch, step, OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(OSError, match="No space"):
                spool.put(taken)
        assert sorted(path.name for path in tmp_path.iterdir()) == [before.name, "lock", "pi_id", "sequence"]
        assert (len(spool), spool.bytes) == (1, before.size)
        assert spool.read(spool.put(taken)) == taken


def test_the_image_is_on_disk_before_it_has_its_name_and_its_name_before_put_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, rename = os.fsync, Path.rename

    def noting_fsync(fd: int) -> None:
        steps.append(f"flush {Path(f'/proc/self/fd/{fd}').readlink().suffix}")
        fsync(fd)

    def noting_rename(path: Path, target: Path) -> Path:
        steps.append(f"rename {path.suffix} to {target.suffix}, {path.stat().st_size > 100_000}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "rename", noting_rename)
    with spool_in(tmp_path) as spool:
        steps.clear()
        spool.put(picture(b"x" * 100_000))
    assert steps == ["flush .part", "rename .part to .image, True", "flush "]


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda content: content[:-1],
        lambda content: content + b"!",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"picture", b"pictuRe"),
        lambda content: content.replace(b'"size"', b'"sise"'),
        lambda content: bytes(len(content)),
        lambda content: b"[]\n" + content,
    ],
)
def test_what_a_disk_has_torn_is_never_read_as_a_picture(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    with spool_in(tmp_path) as spool:
        path = tmp_path / spool.put(picture()).name
    path.write_bytes(damage(path.read_bytes()))
    with spool_in(tmp_path) as spool, pytest.raises(DamagedError, match=path.name):
        spool.read(spool.entries()[0])


def test_reading_what_was_removed_meanwhile_is_told_apart(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        entry = spool.put(picture())
        spool.remove(entry.image_id)
        with pytest.raises(FileNotFoundError):
            spool.read(entry)


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    foreign = ["notes.txt", "1-2.image", "000000000001-not-a-uuid!.image"]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    with spool_in(tmp_path) as spool:
        assert len(spool) == 0
    assert all((tmp_path / name).read_text() == "mine" for name in foreign)


def test_directories_are_left_alone_whatever_their_names(tmp_path: Path) -> None:
    foreign = ["backup.part", f"000000000001-{uuid.uuid4()}.image"]
    for name in foreign:
        (tmp_path / name).mkdir()
    with spool_in(tmp_path) as spool:
        assert len(spool) == spool.bytes == 0
    assert all((tmp_path / name).is_dir() for name in foreign)


def test_an_image_that_is_there_twice_is_counted_once(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        first = spool.put(picture())
        last = spool.put(picture())
    again = tmp_path / f"{last.seq + 1:012d}-{first.image_id}.image"
    again.write_bytes((tmp_path / first.name).read_bytes())
    with spool_in(tmp_path) as spool:
        assert spool.entries() == [first, last]
        assert spool.bytes == first.size + last.size
        assert images_in(tmp_path) == [first.name, last.name]
        assert spool.put(picture()).seq == last.seq + 2
        assert spool.remove(first.image_id)
    with spool_in(tmp_path) as spool:
        assert first.image_id not in [entry.image_id for entry in spool.entries()]


def test_two_publishers_do_not_share_a_spool(tmp_path: Path) -> None:
    with spool_in(tmp_path), pytest.raises(LastingError, match="another posture-publisher uses"), spool_in(tmp_path):
        pass
    with spool_in(tmp_path):
        pass  # the first has let go of it


def test_images_of_another_pi_are_not_sent_as_ones_own(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        entry = spool.put(picture())
    for _ in range(2):
        with (
            pytest.raises(LastingError, match=r"1 image\(s\) of pi1, .* is pi2: .*PI_ID=pi1 .*SPOOL_DIR"),
            spool_in(tmp_path, pi_id="pi2"),
        ):
            pass
    with spool_in(tmp_path) as spool:
        spool.remove(entry.image_id)
    with spool_in(tmp_path, pi_id="pi2") as spool:  # an empty one may change hands
        assert spool.put(picture()).seq > entry.seq
    with pytest.raises(LastingError, match="of pi2, and this is pi1"), spool_in(tmp_path):
        pass


def test_a_spool_from_before_it_named_its_pi_becomes_ones_own(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        entry = spool.put(picture())
    (tmp_path / "pi_id").unlink()
    with spool_in(tmp_path, pi_id="pi2") as spool:
        assert spool.entries() == [entry]
    with pytest.raises(LastingError, match="of pi2, and"), spool_in(tmp_path):
        pass


def test_a_full_disk_does_not_keep_an_older_spool_from_being_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spool_in(tmp_path) as spool:
        entry = spool.put(picture())
    (tmp_path / "pi_id").unlink()

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with spool_in(tmp_path) as spool:
        assert spool.entries() == [entry]


def test_an_image_of_an_earlier_version_is_not_turned_and_its_time_is_not_doubted(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        entry = spool.put(picture())
    path = tmp_path / entry.name
    header, data = path.read_bytes().split(b"\n", 1)
    old = {name: value for name, value in json.loads(header).items() if name not in {"rotate", "clock"}}
    path.write_bytes(json.dumps(old).encode() + b"\n" + data)
    with spool_in(tmp_path) as spool:
        found = spool.read(spool.entries()[0])
    assert (found.rotate, found.clock) == (0, None)


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(LastingError, match=f"{blocked}.*POSTURE_SPOOL_DIR"), spool_in(blocked / "spool"):
        pass


def test_files_are_nobody_elses_to_read(tmp_path: Path) -> None:
    with spool_in(tmp_path / "spool") as spool:
        path = tmp_path / "spool" / spool.put(picture()).name
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_killed_process_leaves_only_whole_pictures(tmp_path: Path) -> None:
    script = """
import sys, uuid
from datetime import UTC, datetime
from pathlib import Path
from posture_publisher.spool import Picture, Spool
with Spool(Path(sys.argv[1]), max_bytes=10**9, pi_id="pi1") as spool:
    while True:
        name = str(uuid.uuid4())
        data = name.encode() * 3000
        spool.put(Picture(image_id=name, captured_at=datetime.now(UTC), filename="x", data=data))
        print(name, flush=True)
"""
    reported = []
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            reported += [process.stdout.readline().strip() for _ in range(3)]
            process.kill()
            reported += process.stdout.read().split()
    with spool_in(tmp_path, max_bytes=10**9) as spool:
        found = {entry.image_id: spool.read(entry).data for entry in spool.entries()}
    assert set(reported) <= set(found)
    assert all(data == image_id.encode() * 3000 for image_id, data in found.items())


class FakeDisk:
    """A disk whose free space a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, free: int) -> None:
        self.free = free
        monkeypatch.setattr(disk, "room", self.room)

    def room(self, path: Path, floor: disk.Floor) -> disk.Room:
        return disk.Room(path, self.free, 10**6, floor.of(10**6), floor.text)


def test_under_the_disks_floor_it_does_not_grow_and_goes_on_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeDisk(monkeypatch, free=60_000)
    with Spool(tmp_path, max_bytes=10**6, pi_id="pi1", floor=disk.floor("5%")) as spool:
        entries = [spool.put(picture(b"x" * 1000)) for _ in range(3)]
        fake.free = 50_000
        with pytest.raises(DiskLowError, match=r"less free space than the floor of 50 kB \(POSTURE_DISK_FLOOR=5%\)"):
            spool.put(picture(b"x" * 1000))
        assert images_in(tmp_path) == [entry.name for entry in entries]
        spool.remove(entries[0].image_id)
        entries.append(spool.put(picture(b"x" * 1000)))  # in the place of another
        for entry in entries:
            spool.remove(entry.image_id)
        one = spool.put(picture(b"x" * 1000))
        fake.free = 60_000
        spool.put(picture(b"x" * 1000))
        assert len(spool) == 2
        fake.free = 0
        spool.remove(one.image_id)


def test_without_a_floor_the_disk_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeDisk(monkeypatch, free=0)
    with spool_in(tmp_path) as spool:
        spool.put(picture())
        spool.put(picture())
