"""What lies in a directory of pictures: which files may be pictures, and why the others are not taken."""

import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from . import metrics
from .camera import CameraError

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".dib"})
TOLD_AT_ONCE = 20
"""Of so many files that are not taken each has its own line in the log; further ones of the same look share one."""


class Reason(Enum):
    """Why a file of the directory is not taken."""

    NAME = f"its name does not end in one of {' '.join(sorted(SUFFIXES))}"
    DIRECTORY = "it is a directory, and only what lies directly in the replayed one is taken"
    SPECIAL = "it is not a file, nor a link to one"
    EMPTY = "it is empty"


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was seen: its name, size in bytes, and time of last change; `touched_ns` is the time of the last
    change of content, name or rights by the file system's own clock, and does not make it another file."""

    name: str
    size: int
    changed_ns: int
    touched_ns: int = field(default=0, compare=False)


Other = tuple[str, Reason]


def list_pictures(directory: Path) -> tuple[list[File], list[Other]]:
    """Return the pictures of a directory, and the names of what is not taken, with why; raises CameraError.

    Hidden files, as the programs that copy files use them meanwhile, are in neither.
    """
    files: list[File] = []
    others: list[Other] = []
    try:
        with os.scandir(directory) as found:
            for item in found:
                if item.name.startswith("."):
                    continue
                reason = _reason(item)
                if reason is not None:
                    others.append((item.name, reason))
                    continue
                try:
                    status = item.stat()
                except FileNotFoundError:  # it was removed just now
                    continue
                files.append(File(item.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except OSError as error:
        raise CameraError(
            f"cannot read the pictures in {directory}: {error.strerror}; make it a directory that user "
            f"{os.geteuid()} may read, or correct POSTURE_CAMERA"
        ) from None
    return files, others


def _reason(item: "os.DirEntry[str]") -> Reason | None:
    try:
        if item.is_dir():
            return Reason.DIRECTORY
        if not item.is_file():
            return Reason.SPECIAL
    except OSError:  # a link to itself, or to where we may not look
        return Reason.SPECIAL
    return None if Path(item.name).suffix.lower() in SUFFIXES else Reason.NAME


class Untaken:
    """Tells and counts each file that is not taken, once for as long as it is there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._told: set[int] = set()  # hashes: there may be many, and a name takes ten times as much

    def tell(self, others: list[Other]) -> None:
        """Hear what a look found, all of it; tell what is new."""
        new = [other for other in others if hash(other) not in self._told]
        self._told = set(map(hash, others))
        for reason, count in Counter(reason for _, reason in new).items():
            metrics.NOT_TAKEN.labels(reason=reason.name.lower()).inc(count)
        for name, reason in new[:TOLD_AT_ONCE]:
            log.warning("%s is not taken: %s", printable(str(self._directory / name)), reason.value)
        if further := new[TOLD_AT_ONCE:]:
            log.warning(
                "%d further files in %s are not taken, for example %s: %s",
                len(further),
                self._directory,
                printable(further[0][0]),
                further[0][1].value,
            )


def printable(name: str) -> str:
    """Return the name as MQTT allows text: a broker disconnects whoever sends control characters or half surrogates."""
    return "".join(character if character.isprintable() else "?" for character in name)
