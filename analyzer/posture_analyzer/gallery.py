"""Where annotated pictures are kept: one file an image, complete or not there at all."""

import errno
import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_STRANGE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_STEM = 100
_PART = ".{}.part"
FOLDER_MODE, FILE_MODE = 0o750, 0o640
"""Pictures of people are for their owner and the folder's group, whatever the umask lets others do."""


def picture_path(images_dir: Path, *, pi_id: str, filename: str | None, key: str) -> Path:
    """Return the picture's path: readable by the publisher's name for it, unique by its key."""
    # A Pi may run Windows names or paths through; only the last part names the picture.
    stem = PurePosixPath((filename or "image").replace("\\", "/")).stem
    stem = _STRANGE.sub("_", stem).strip("._")[:_LONGEST_STEM] or "image"
    unique = hashlib.sha256(key.encode()).hexdigest()[:12]
    return images_dir / f"analyzed_images_from_{pi_id}" / f"{stem}-{unique}.jpg"


def longest_name(directory: Path) -> int:
    """Return how many bytes a picture's name may have in the directory, so that `save` can write it."""
    return os.pathconf(directory, "PC_NAME_MAX") - len(_PART.format(""))


def save(path: Path, picture: bytes) -> None:
    """Write the picture so that a crash or a power cut leaves all of it or nothing under its name.

    Only `flush_names` makes sure that the name is there after a power cut.

    Raises:
        OSError: the disk is full, or the directory cannot be written.
    """
    path.parent.mkdir(FOLDER_MODE, exist_ok=True)
    # The name is the picture's own: after a crash the next try overwrites the leftover.
    part = path.with_name(_PART.format(path.name))
    try:
        with open_private(part) as file:
            file.write(picture)
            file.flush()
            os.fdatasync(file.fileno())
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def open_private(path: Path) -> BinaryIO:
    """Open a file to be written anew, with `FILE_MODE` where the umask allows as much; no link is followed.

    Raises:
        OSError: it cannot be opened.
    """
    with suppress(FileNotFoundError):
        path.unlink()  # It may have the mode of a former release.
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb")  # noqa: PTH123  (the mode)


def flush_names(paths: Iterable[Path]) -> None:
    """Make the names of saved pictures last through a power cut, and those of their folders, which may be new.

    Raises:
        OSError: the disk fails.
    """
    folders = {path.parent for path in paths}
    for folder in sorted(folders | {folder.parent for folder in folders}):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # Some network file systems cannot flush a folder, and need not.
                raise
        finally:
            os.close(descriptor)
