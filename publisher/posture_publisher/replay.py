"""A directory of pictures, replayed in the order of names and then watched for new ones.

A file is taken when it is complete. Its structure says whether the end of the picture is there; how long it must have
stayed as it is depends on that (`PATIENCE_S`). So a copy that pauses half way is one image, not two.

A picture is noted after it is spooled: a crash between the two takes it again, under the same image_id, which the spool
or the table absorbs.
"""

import hashlib
import logging
import os
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from . import exif, structure
from .camera import CameraError
from .folder import File, Reason, Untaken, list_pictures, printable
from .notes import Notes
from .spool import Picture
from .structure import Ending

log = logging.getLogger(__name__)

PATIENCE_S = {Ending.WHOLE: 0.5, Ending.MORE: 5.0, Ending.OPEN: 60.0}
"""How long a file must have stayed as it is to be taken, by what its end says."""
_NAMESPACE = uuid.UUID("3d1c1a3e-2f5b-5c0e-9a53-6f0f6a1c9b11")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Watched:
    """A file that may still change: as it was seen, since when it is so, and how it ends where that was looked at."""

    file: File
    since: float
    ending: Ending | None = None

    def is_still(self, file: File) -> bool:
        return (self.file, self.file.touched_ns) == (file, file.touched_ns)


class Replay:
    """Replays the pictures of a directory so many times, then takes each new or changed one; subdirectories are left.

    A picture's image_id follows from Pi, round, file name and content. A file of more than `max_bytes`, or that cannot
    be read, is refused: `refused` is called, once.

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
        self._watched: dict[str, _Watched] = {}
        self._skipped: dict[File, int] = {}  # not taken as they are: with their touched_ns, for rights may change
        self._untaken = Untaken(directory)
        self._told_done = False
        self._taking: File | None = None

    def __enter__(self) -> Self:
        try:
            self._notes = Notes(self._notes_path, self._directory, self._pi_id)
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
        found, others = list_pictures(self._directory)
        self._watched = {file.name: self._watched[file.name] for file in found if file.name in self._watched}
        self._skipped = {file: self._skipped[file] for file in found if file in self._skipped}
        empty = {file for file in found if not file.size and self._quiet_s(file) >= PATIENCE_S[Ending.OPEN]}
        self._untaken.tell(others + [(file.name, Reason.EMPTY) for file in empty])
        files = [file for file in found if file not in empty and self._skipped.get(file) != file.touched_ns]
        new = [file for file in files if file not in self._notes.taken]
        if files and not new and (self._rounds == 0 or self._notes.round < self._rounds):
            self._notes.next_round()
            new = files
        elif files and not new and not self._told_done:
            self._told_done = True
            log.info("every picture in %s is taken; waiting for new ones", self._directory)
        if files and len(self._notes.taken) > 2 * len(files) + 1000:
            self._notes.keep_only(set(files))
        self._ahead.extend(sorted(filter(self._is_settled, new), key=lambda file: file.name))

    def _is_settled(self, file: File) -> bool:
        """Return whether a file has been as it is for long enough to be read."""
        if not file.size:
            return False
        watched = self._watched.get(file.name)
        ending = watched.ending if watched and watched.is_still(file) else None
        if ending is None and 0 <= file.changed_ns / 1e9 < time.time() - PATIENCE_S[Ending.WHOLE]:
            return True
        # Just changed, not complete, or the clocks disagree: look how long it stays so.
        return self._quiet_s(file) >= PATIENCE_S[ending or Ending.WHOLE]

    def _quiet_s(self, file: File) -> float:
        """Watch a file from now on, and return for how long it was seen as it is."""
        now = time.monotonic()
        watched = self._watched.get(file.name)
        if watched is None or not watched.is_still(file):
            watched = self._watched[file.name] = _Watched(file, now)
        return now - watched.since

    def _is_complete(self, file: File, ending: Ending) -> bool:
        if ending is Ending.WHOLE:
            self._watched.pop(file.name, None)
            return True
        quiet_s = self._quiet_s(file)
        self._watched[file.name].ending = ending  # it is read again when it has changed, or when its time has come
        if quiet_s < PATIENCE_S[ending]:
            return False
        if ending is Ending.OPEN:
            log.warning(
                "%s is sent as it is, unchanged for %.0f s: %s", self._path(file), PATIENCE_S[ending], ending.value
            )
        return True

    def _read(self, file: File) -> Picture | None:
        path = self._directory / file.name
        if file.size > self._max_bytes:
            if self._is_complete(file, Ending.MORE):  # else it would be told again and again while it grows
                self._skip(
                    file,
                    f"{file.size} bytes is more than {self._max_bytes}, the most that is sent "
                    "(POSTURE_MAX_IMAGE_BYTES, POSTURE_SPOOL_MAX_BYTES)",
                )
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
        found = structure.look(data)
        if not self._is_complete(file, found.ending):
            return None
        content = hashlib.sha256(os.fsencode(file.name) + b"\0" + data).hexdigest()
        return Picture(
            image_id=str(uuid.uuid5(_NAMESPACE, f"{self._pi_id}/{self._notes.round}/{content}")),
            captured_at=exif.taken_at(found.exif) or _changed_at(file),
            filename=printable(file.name),
            data=data,
        )

    def _skip(self, file: File, reason: str) -> None:
        log.error("%s is not sent: %s", self._path(file), reason)
        self._skipped[file] = file.touched_ns
        self._refused()

    def _path(self, file: File) -> str:
        return printable(str(self._directory / file.name))


def _changed_at(file: File) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=file.changed_ns // 1000)
    except OverflowError:  # a file system may say anything
        return datetime.now(UTC)
