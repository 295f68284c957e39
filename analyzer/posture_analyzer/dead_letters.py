"""Rows that the database refused: one JSON file each, kept until the table is mended and `posture-analyzer retry`.

    <images_dir>/dead-letters/<pi_id>-<24 hex>.json    complete, and safe from a power cut
    <images_dir>/dead-letters/.<the same>.part         being written, or left by a crash: overwritten by the next try

The hex digits are the start of the SHA-256 of the row's key, so a row that comes again has its file already.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import gallery
from .database import Database, Key, Row
from .refusals import Refusal

MAX_LETTERS = 10_000
MAX_BYTES = 64 * 2**20


SHARE = 4
"""Where several Pis share the room, none gets more than one part of so many."""
_AFTER_PI = len("-.json") + 24


class DeadLettersFullError(Exception):
    """There is no room for one more refused row."""


class ShareUsedUpError(Exception):
    """A Pi has used up what it may of the room, and others must not wait for it."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A refused row, and why it was refused."""

    row: Row
    reason: str


class DeadLetters:
    """The refused rows beside the pictures in `images_dir`; several analyzers may use them.

    With `shared`, for a stream of several Pis, one Pi cannot fill them.
    """

    def __init__(
        self, images_dir: Path, *, max_letters: int = MAX_LETTERS, max_bytes: int = MAX_BYTES, shared: bool = False
    ) -> None:
        self.directory = images_dir / "dead-letters"
        self._shared = shared
        self._max_letters = max_letters
        self._max_bytes = max_bytes

    def put(self, row: Row, refusal: Refusal) -> bool:
        """Keep the row; when this returns, it survives a power cut. False where it was here already.

        Raises:
            DeadLettersFullError: as many rows as may be lie here.
            ShareUsedUpError: as many of this Pi as may be, where others share the room.
            OSError: the disk is full, or the directory cannot be written.
        """
        path = self.path(row.key)
        if self.find(row.key) is not None:
            return False
        content = json.dumps({"refused": str(refusal), "row": row.as_dict()}, indent=1).encode() + b"\n"
        self._check_room(len(content), row.pi_id)
        if not self.directory.is_dir():
            self.directory.mkdir(gallery.FOLDER_MODE, exist_ok=True)
            _flush_directory(self.directory.parent)
        part = path.with_name(f".{path.name}.part")
        with gallery.open_private(part) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        _flush_directory(self.directory)
        return True

    def find(self, key: Key) -> Letter | None:
        """Return what is kept of the row, None where it is not here or its file cannot be read: `put` replaces that."""
        with suppress(OSError, ValueError):
            return read(self.path(key))
        return None

    def paths(self) -> list[Path]:
        """Return the files, by name.

        Raises:
            OSError: the directory is there and cannot be read.
        """
        return [self.directory / name for name in sorted(entry.name for entry in self._entries())]

    def note(self) -> str | None:
        """Say how many rows lie here and what to do about them; None where there are none."""
        try:
            count = len(self._entries())
        except OSError as error:
            return f"cannot read {self.directory}: {error.strerror}"
        if not count:
            return None
        rows = "1 row was refused and lies" if count == 1 else f"{count} rows were refused and lie"
        return f"{rows} in {self.directory}; mend the table, then run posture-analyzer retry"

    def path(self, key: Key) -> Path:
        """Return the file of the row with this key."""
        pi_id, image_id = key
        return self.directory / f"{pi_id}-{hashlib.sha256(image_id.encode()).hexdigest()[:24]}.json"

    def _check_room(self, size: int, pi_id: str) -> None:
        entries = self._entries()
        if self._shared:
            own = [entry for entry in entries if entry.name[:-_AFTER_PI] == pi_id]
            if SHARE * len(own) >= self._max_letters or SHARE * (sum(map(_size, own)) + size) > self._max_bytes:
                raise ShareUsedUpError(
                    f"{len(own)} refused rows of {pi_id} lie in {self.directory}, more than its share; mend the table, "
                    "then run posture-analyzer retry"
                )
        if len(entries) >= self._max_letters or sum(map(_size, entries)) + size > self._max_bytes:
            raise DeadLettersFullError(
                f"{self.directory} is full: {len(entries)} refused rows lie there (at most {self._max_letters}, and "
                f"{self._max_bytes} bytes); mend the table, then run posture-analyzer retry"
            )

    def _entries(self) -> "list[os.DirEntry[str]]":
        with suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            return [entry for entry in entries if entry.name.endswith(".json") and not entry.name.startswith(".")]
        return []


def read(path: Path) -> Letter:
    """Return the letter in a file.

    Raises:
        ValueError: the file holds no letter.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
        return Letter(Row.of_dict(content["row"]), str(content["refused"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a refused row: {error!r}") from None


def retry(letters: DeadLetters, database: Database) -> Iterator[tuple[Path, str | None]]:
    """Insert each refused row; yield its file and why it is still there, None where the row is in the table now.

    A file goes after the commit of its row, and a row that is there already changes nothing.

    Raises:
        DatabaseUnavailableError, LastingError: as the database's methods.
        OSError: a file cannot be removed, or the directory not be read.
    """
    for path in letters.paths():
        try:
            row = read(path).row
        except FileNotFoundError:
            continue  # Somebody else has put it in.
        except (OSError, ValueError) as error:
            yield path, f"cannot be read: {error}"
            continue
        refusal = database.insert([row]).refused.get(row.key)
        if refusal is None:
            path.unlink(missing_ok=True)
        yield path, None if refusal is None else str(refusal)


def _size(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # `retry` has just put it in.
        return 0


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
