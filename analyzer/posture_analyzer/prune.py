"""What is kept of pictures and dead letters, and for how long.

Both go by age, pictures then by size, the oldest first. A dead letter is small, and the only copy of a row.
Folders hold millions of files, so none is remembered: one walk adds up their bytes by minute, another removes.
"""

import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

DEFAULT_MOST_BYTES = 50 * 10**9
_DAY = 86_400
_MINUTE = 60
_QUIET = 3_600
"""An empty folder goes when nothing has changed in it for so long: an analyzer may have just made it."""
_PICTURES, _LETTERS = ".jpg", ".json"
_SUFFIXES = {"analyzed_images_from_": _PICTURES, "dead-letters": _LETTERS}


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, and what is left."""

    removed: int
    removed_bytes: int
    left_bytes: int


@dataclass(frozen=True, slots=True)
class _File:
    folder: int
    name: str
    minute: int
    time: int
    size: int


def default_keep_bytes(images_dir: Path) -> int:
    """Return a tenth of the disk, at most 50 GB."""
    return min(shutil.disk_usage(images_dir).total // 10, DEFAULT_MOST_BYTES)


def first_kept_minute(bytes_by_minute: Mapping[int, int], *, now: float, keep_days: int, keep_bytes: int) -> int:
    """Return the minute before which everything goes.

    With `keep_days` 0 age does not matter. A minute goes or stays as a whole, so that what is left is never over
    `keep_bytes`.
    """
    first = _first_young_minute(now, keep_days)
    kept = 0
    for minute in sorted((minute for minute in bytes_by_minute if minute >= first), reverse=True):
        kept += bytes_by_minute[minute]
        if kept > keep_bytes:
            return minute + 1
    return first


def _first_young_minute(now: float, keep_days: int) -> int:
    return int((now - keep_days * _DAY) // _MINUTE) if keep_days else 0


def prune(images_dir: Path, *, now: float, keep_days: int, keep_bytes: int) -> Pruned:
    """Remove what is too old or too much, but never the newest picture. Another prune at the same time does no harm.

    Raises:
        OSError: the directory cannot be read, or a file in it not be removed.
    """
    bytes_by_minute: Counter[int] = Counter()
    newest = 0
    for file in _files(images_dir, _PICTURES):
        bytes_by_minute[file.minute] += file.size
        newest = max(newest, file.time)
    first_kept = {
        _PICTURES: first_kept_minute(bytes_by_minute, now=now, keep_days=keep_days, keep_bytes=keep_bytes),
        _LETTERS: _first_young_minute(now, keep_days),
    }
    removed = removed_bytes = left_bytes = 0
    for suffix, first in first_kept.items():
        for file in _files(images_dir, suffix):
            if file.minute >= first or (suffix == _PICTURES and file.time >= newest):
                left_bytes += file.size
                continue
            with suppress(FileNotFoundError):
                os.unlink(file.name, dir_fd=file.folder)
                removed += 1
                removed_bytes += file.size
    _remove_empty_folders(images_dir, now)
    return Pruned(removed, removed_bytes, left_bytes)


def _files(images_dir: Path, suffix: str) -> Iterator[_File]:
    """Yield complete files of a kind that an analyzer wrote. No link is followed: an analyzer's user could lay one."""
    for name, of in _folders(images_dir):
        if of != suffix:
            continue
        with _opened(images_dir / name) as folder:
            if folder is None:
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or not entry.name.endswith(suffix):
                        continue
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            minute = int(status.st_mtime // _MINUTE)
                            yield _File(folder, entry.name, minute, status.st_mtime_ns, status.st_size)


def _folders(images_dir: Path) -> Iterator[tuple[str, str]]:
    for name in sorted(path.name for path in images_dir.iterdir()):
        for start, suffix in _SUFFIXES.items():
            if name.startswith(start):
                yield name, suffix


@contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):  # Gone, or a link.
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_empty_folders(images_dir: Path, now: float) -> None:
    for name, _ in _folders(images_dir):
        folder = images_dir / name
        with suppress(OSError):  # Not empty, a link, or gone.
            if folder.lstat().st_mtime < now - _QUIET:
                folder.rmdir()
