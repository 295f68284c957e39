"""A directory of pictures, replayed in the order of names and then watched for new ones.

What was taken is noted in a file beside the spool, so that a restart goes on where it was. A picture is noted after it
is spooled: a crash between the two takes it again, under the same image_id, which the spool or the table absorbs.

The note is a line about the round, then one line for each file taken in it:

    {"directory": "/samples", "round": 2}
    ["astronaut.png", 791555, 1732300000000000000]        name, size in bytes, time of last change in ns
"""

import hashlib
import json
import logging
import os
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from .camera import CameraError
from .spool import Picture

log = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
SETTLED_S = 1.0
"""A file that has not changed for so long is complete."""
_NAMESPACE = uuid.UUID("3d1c1a3e-2f5b-5c0e-9a53-6f0f6a1c9b11")


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was seen: its name, size in bytes, and time of last change."""

    name: str
    size: int
    changed_ns: int


def list_pictures(directory: Path) -> tuple[list[File], list[str]]:
    """Return the pictures of a directory, and the names of its other files; raises CameraError."""
    files, others = [], []
    try:
        with os.scandir(directory) as found:
            for item in found:
                if item.name.startswith(".") or not item.is_file():
                    continue
                if Path(item.name).suffix.lower() not in SUFFIXES:
                    others.append(item.name)
                    continue
                with suppress(FileNotFoundError):  # it was removed just now
                    status = item.stat()
                    files.append(File(item.name, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise CameraError(
            f"cannot read the pictures in {directory}: {error.strerror}; make it a directory that user "
            f"{os.geteuid()} may read, or correct POSTURE_CAMERA"
        ) from None
    return files, others


class _Notes:
    """Which files were taken in which round, on disk."""

    def __init__(self, path: Path, directory: Path) -> None:
        self._path = path
        self._directory = str(directory)
        self.round = 1
        self.taken: set[File] = set()
        self._read()
        self._file = self._rewrite()

    def close(self) -> None:
        with suppress(OSError):  # what is not noted is taken again, under the same image_id
            self._file.close()

    def add(self, file: File) -> None:
        self.taken.add(file)
        self._file.write(_line(file))
        with suppress(OSError):  # it stays buffered and is tried again with the next
            self._file.flush()

    def keep_only(self, files: set[File]) -> None:
        self.taken &= files
        self.close()
        self._file = self._rewrite()

    def next_round(self) -> None:
        self.round += 1
        self.taken.clear()
        self.close()
        self._file = self._rewrite()

    def _read(self) -> None:
        try:
            first, *lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
            about = json.loads(first)
            if about["directory"] != self._directory:
                return
            self.round = int(about["round"])
            for line in lines:
                name, size, changed_ns = json.loads(line)
                self.taken.add(File(name, size, changed_ns))
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            # A power cut tore it: what is not noted is taken again under the same image_id.
            log.warning("%s is damaged: pictures that it no longer names are sent once more", self._path)

    def _rewrite(self) -> TextIO:
        """Replace the file by what is known, in one step, and return it open for appending."""
        part = self._path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps({"directory": self._directory, "round": self.round}) + "\n")
            file.writelines(_line(file_taken) for file_taken in self.taken)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._path)
        return self._path.open("a", encoding="utf-8")


def _line(file: File) -> str:
    return json.dumps([file.name, file.size, file.changed_ns]) + "\n"


class Replay:
    """Replays the pictures of a directory so many times, then takes each new or changed one; subdirectories are left.

    A picture's image_id follows from Pi, round, file name and content. A file of more than `max_bytes` is refused:
    `refused` is called, once.

    Args:
        pi_id: the Pi that the pictures are published for.
        directory: where the pictures are.
        notes: the file that remembers what was taken; written to, and read at the start.
        rounds: how often the pictures are replayed; 0: for ever.
        max_bytes: largest file that is taken.
        refused: told about each picture that is not taken.
    """

    live = False

    def __init__(
        self, pi_id: str, directory: Path, *, notes: Path, rounds: int, max_bytes: int, refused: Callable[[], None]
    ) -> None:
        self._pi_id = pi_id
        self._directory = directory
        self._notes_path = notes
        self._rounds = rounds
        self._max_bytes = max_bytes
        self._refused = refused
        self._ahead: deque[File] = deque()
        self._seen: dict[str, tuple[File, float]] = {}  # not yet settled: as seen, and when first so
        self._skipped: set[File] = set()  # will not be taken as they are
        self._told_others = self._told_done = False
        self._taking: File | None = None

    def __enter__(self) -> Self:
        try:
            self._notes = _Notes(self._notes_path, self._directory)
        except OSError as error:
            raise CameraError(f"cannot write {self._notes_path}: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._notes.close()

    def take(self) -> Picture | None:
        """Return the next picture, or None where no complete new one is there."""
        if not self._ahead:
            try:
                self._look()
            except OSError as error:
                raise CameraError(f"cannot write {self._notes_path}: {error.strerror}") from None
        while self._ahead:
            file = self._ahead.popleft()
            picture = self._read(file)
            if picture is not None:
                self._taking = file
                return picture
        return None

    def spooled(self) -> None:
        """Note the picture that was taken last."""
        if self._taking is not None:
            self._notes.add(self._taking)

    def _look(self) -> None:
        files = [file for file in self._list() if file not in self._skipped]
        new = [file for file in files if file not in self._notes.taken]
        if files and not new and (self._rounds == 0 or self._notes.round < self._rounds):
            self._notes.next_round()
            new = files
        elif files and not new and not self._told_done:
            self._told_done = True
            log.info("every picture in %s is taken; waiting for new ones", self._directory)
        if files and len(self._notes.taken) > 2 * len(files) + 1000:
            self._notes.keep_only(set(files))
        settled = {file for file in new if self._is_settled(file)}
        self._seen = {file.name: self._seen[file.name] for file in new if file not in settled}
        self._ahead.extend(sorted(settled, key=lambda file: file.name))

    def _list(self) -> list[File]:
        files, others = list_pictures(self._directory)
        if others and not self._told_others:
            self._told_others = True
            log.warning(
                "%d files in %s are no pictures by their names (%s) and are skipped, e.g. %s",
                len(others),
                self._directory,
                " ".join(sorted(SUFFIXES)),
                _printable(min(others)),
            )
        return files

    def _is_settled(self, file: File) -> bool:
        if file.size and 0 <= file.changed_ns / 1e9 < time.time() - SETTLED_S:
            return True
        # Just changed, or the clocks disagree: look how long it stays so.
        now = time.monotonic()
        seen, since = self._seen.setdefault(file.name, (file, now))
        if seen != file:
            self._seen[file.name] = (file, now)
            return False
        return file.size > 0 and now - since >= SETTLED_S

    def _read(self, file: File) -> Picture | None:
        path = self._directory / file.name
        if file.size > self._max_bytes:
            self._skip(file, f"{file.size} bytes is more than {self._max_bytes}, the most that is sent")
            return None
        try:
            data = path.read_bytes()
            status = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._skip(file, f"{error.strerror}; let user {os.geteuid()} read it")
            return None
        if (status.st_size, status.st_mtime_ns, len(data)) != (file.size, file.changed_ns, file.size):
            return None  # it is being written: the next look sees it as it is then
        content = hashlib.sha256(os.fsencode(file.name) + b"\0" + data).hexdigest()
        return Picture(
            image_id=str(uuid.uuid5(_NAMESPACE, f"{self._pi_id}/{self._notes.round}/{content}")),
            captured_at=datetime.now(UTC),
            filename=_printable(file.name),
            data=data,
        )

    def _skip(self, file: File, reason: str) -> None:
        log.error("%s is not sent: %s", _printable(str(self._directory / file.name)), reason)
        self._skipped.add(file)
        self._refused()


def _printable(name: str) -> str:
    """Return the name as MQTT allows text: a broker disconnects whoever sends control characters or half surrogates."""
    return "".join(character if character.isprintable() else "?" for character in name)
