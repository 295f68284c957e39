"""The images that are not yet known to be committed: one file each, safe from a crash and from a power cut.

    <directory>/000000000042-<image_id>.image    a line of JSON about the image, then its bytes
    <directory>/000000000043-<image_id>.part     being written; swept at the next start
    <directory>/sequence                         the last number given; only a hint, the files themselves count too
    <directory>/pi_id                            whose images they are: a topic and a row name them after who sends them
    <directory>/lock                             held while a publisher uses the directory

Other files are left alone. An image is written, flushed to the disk, renamed, and the directory flushed, before `put`
returns: a name that ends in .image is a complete file. Length and checksum are looked at again when it is read, for
disks that promise and do not keep.
"""

import errno
import fcntl
import json
import os
import re
import threading
import zlib
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from posture_common import disk
from posture_common.disk import Floor
from posture_common.service import LastingError

_OWNER = "pi_id"
_NAME = re.compile(r"(\d{12})-([0-9a-f-]{36})\.image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An encoded image as it was taken, named by a UUID."""

    image_id: str
    captured_at: datetime
    filename: str
    data: bytes
    rotate: int = 0
    """By how many degrees clockwise people must turn it to see it upright: 0, 90, 180 or 270."""
    clock: str | None = None
    """`unsynchronised` where the clock that gave `captured_at` could not be believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A spooled image: `seq` is its place among this Pi's images, `size` its file's, `since` when it was written
    (seconds of the wall clock)."""

    seq: int
    image_id: str
    size: int
    since: float

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.seq:012d}-{self.image_id}.image"


class SpoolFullError(Exception):
    """The image does not fit beside what is spooled."""


class DiskLowError(SpoolFullError):
    """The disk is under its floor, and the image would make the spool grow."""


class DamagedError(Exception):
    """The file of a spooled image is not what was written."""


class Spool:
    """The spool of one publisher, open while its `with` block runs. Thread-safe.

    Args:
        directory: made if it is missing.
        max_bytes: bound of the sum of all image files.
        pi_id: whose images they are; a directory that names nobody, or holds no image, becomes this Pi's.
        floor: free space of the disk under which the spool grows no more. One image has room all the same, so that
            images go on through it: what fills the disk may be somebody else's.

    Raises:
        LastingError: the directory cannot be used, another publisher uses it, or it holds another Pi's images.
        OSError: the disk is full.
    """

    def __init__(self, directory: Path, *, max_bytes: int, pi_id: str, floor: Floor | None = None) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._pi_id = pi_id
        self._floor = floor
        self._grown_to: int | None = None  # while the disk is under its floor
        self._entries: dict[str, Entry] = {}  # oldest first
        self._bytes = 0
        self._last_seq = 0
        self._lock = threading.Lock()
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory_fd = self._open("", os.O_RDONLY | os.O_DIRECTORY)
            self._hold_lock()
            self._sequence_fd = self._open("sequence", os.O_RDWR | os.O_CREAT)
            self._list()
            self._claim()
        except OSError as error:
            self._resources.close()
            if is_full_disk(error):
                raise
            raise LastingError(
                f"cannot use the spool directory {self._directory}: {error.strerror}; "
                f"let user {os.geteuid()} write there or set POSTURE_SPOOL_DIR"
            ) from None
        except LastingError:
            self._resources.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """The size of all image files together."""
        return self._bytes

    def entries(self) -> list[Entry]:
        """Return all images, oldest first."""
        with self._lock:
            return list(self._entries.values())

    def oldest(self) -> Entry | None:
        """Return the image that has been here longest."""
        with self._lock:
            return next(iter(self._entries.values()), None)

    def put(self, picture: Picture) -> Entry:
        """Write the image to the disk; when this returns, it survives a power cut. One that is here already stays.

        Raises:
            SpoolFullError: it does not fit, in the spool or on the disk; nothing was changed.
            OSError: it could not be written; nothing was changed.
        """
        header = {
            "image_id": picture.image_id,
            "captured_at": picture.captured_at.isoformat(),
            "filename": picture.filename,
            "rotate": picture.rotate,
            "clock": picture.clock,
            "size": len(picture.data),
            "crc32": zlib.crc32(picture.data),
        }
        line = json.dumps(header).encode() + b"\n"
        size = len(line) + len(picture.data)
        with self._lock:
            known = self._entries.get(picture.image_id)
            if known is not None:
                return known
            if self._bytes + size > self._max_bytes:
                raise SpoolFullError(
                    f"the spool {self._directory} holds {len(self._entries)} images, {self._bytes} of "
                    f"{self._max_bytes} bytes (POSTURE_SPOOL_MAX_BYTES)"
                )
            self._check_disk(size)
            seq = self._last_seq + 1
        # Written without the lock: a slow disk must not keep confirmed images from being freed. One thread puts.
        path = self._directory / f"{seq:012d}-{picture.image_id}.image"
        part = path.with_suffix(".part")
        try:
            _write_durably(part, line, picture.data)
            part.rename(path)
            os.fsync(self._directory_fd)
            since = path.stat().st_mtime
        except OSError:
            for leftover in (part, path):
                with suppress(OSError):
                    leftover.unlink(missing_ok=True)
            raise
        entry = Entry(seq=seq, image_id=picture.image_id, size=size, since=since)
        with self._lock:
            self._last_seq = seq
            self._keep(entry)
        with suppress(OSError):
            os.pwrite(self._sequence_fd, f"{seq:012d}\n".encode(), 0)
        return entry

    def read(self, entry: Entry) -> Picture:
        """Return the image.

        Raises:
            FileNotFoundError: it was removed meanwhile.
            DamagedError: it is not what was written.
            OSError: the disk does not give it.
        """
        content = (self._directory / entry.name).read_bytes()
        line, _, data = content.partition(b"\n")
        try:
            header = json.loads(line)
            if len(data) != header["size"] or zlib.crc32(data) != header["crc32"]:
                raise DamagedError(f"{self._directory / entry.name}: its bytes are not those that were written")
            return Picture(
                image_id=entry.image_id,
                captured_at=datetime.fromisoformat(header["captured_at"]),
                filename=header["filename"],
                data=data,
                rotate=int(header.get("rotate", 0)),
                clock=header.get("clock"),
            )
        except (ValueError, KeyError, TypeError):
            raise DamagedError(f"{self._directory / entry.name}: its first line is not what was written") from None

    def _check_disk(self, size: int) -> None:
        """Raise DiskLowError where the disk is under its floor and the spool would grow."""
        room = disk.room(self._directory, self._floor) if self._floor else None
        if room is None or not room.lacks(size):
            self._grown_to = None
            return
        if self._grown_to is None:
            self._grown_to = self._bytes
        if self._entries and self._bytes + size > self._grown_to:
            raise DiskLowError(room.shortage)

    def remove(self, image_id: str) -> bool:
        """Free an image; return whether it was there. After a power cut it may be back: it is then sent once more.

        Raises:
            OSError: the file cannot be removed; the image stays.
        """
        with self._lock:
            entry = self._entries.get(image_id)
            if entry is None:
                return False
            (self._directory / entry.name).unlink(missing_ok=True)
            del self._entries[image_id]
            self._bytes -= entry.size
            return True

    def _keep(self, entry: Entry) -> None:
        self._entries[entry.image_id] = entry
        self._bytes += entry.size

    def _open(self, name: str, flags: int) -> int:
        fd = os.open(self._directory / name, flags, 0o600)
        self._resources.callback(os.close, fd)
        return fd

    def _hold_lock(self) -> None:
        fd = self._open("lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LastingError(
                f"another posture-publisher uses the spool directory {self._directory}; "
                "stop it or set POSTURE_SPOOL_DIR"
            ) from None

    def _claim(self) -> None:
        owner = check_owner(self._directory, self._pi_id)
        if owner == self._pi_id:
            return
        path = self._directory / _OWNER
        part = path.with_suffix(".part")
        try:
            _write_durably(part, f"{self._pi_id}\n".encode())
            part.rename(path)
            os.fsync(self._directory_fd)
        except OSError as error:
            if owner or not is_full_disk(error):
                raise  # else the images that fill the disk go out, and the next start makes it this Pi's

    def _list(self) -> None:
        found = []
        with os.scandir(self._directory) as files:
            for file in files:
                if not file.is_file(follow_symlinks=False):
                    continue
                if file.name.endswith(".part"):
                    Path(file.path).unlink()
                elif match := _NAME.fullmatch(file.name):
                    status = file.stat()
                    entry = Entry(seq=int(match[1]), image_id=match[2], size=status.st_size, since=status.st_mtime)
                    found.append(entry)
        for entry in sorted(found, key=lambda entry: entry.seq):
            if entry.image_id in self._entries:  # freed, taken again, and a power cut took the freeing back
                (self._directory / entry.name).unlink()
            else:
                self._keep(entry)
        text = os.pread(self._sequence_fd, 12, 0)
        hint = int(text) if text.isdigit() else 0
        self._last_seq = max([hint, *(entry.seq for entry in found)])


def _write_durably(path: Path, *parts: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def check_owner(directory: Path, pi_id: str) -> str:
    """Return whose spool the directory is, "" where it does not say.

    Raises:
        LastingError: it holds images of another Pi.
        OSError: it cannot be read.
    """
    try:
        owner = (directory / _OWNER).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""
    images = sum(_NAME.fullmatch(file.name) is not None for file in directory.iterdir()) if owner != pi_id else 0
    if owner and images:
        raise LastingError(
            f"the spool directory {directory} holds {images} image(s) of {owner}, and this is {pi_id}: run with "
            f"POSTURE_PI_ID={owner} until they are confirmed, or move the directory away, or set POSTURE_SPOOL_DIR"
        )
    return owner


def is_full_disk(error: OSError) -> bool:
    """Whether the error says that the disk or the user's share of it is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}
