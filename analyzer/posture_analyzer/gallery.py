"""Where annotated pictures are kept: one file an image, complete or not there at all."""

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

_STRANGE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_STEM = 100


def picture_path(images_dir: Path, *, pi_id: str, filename: str | None, key: str) -> Path:
    """Return the picture's path: readable by the publisher's name for it, unique by its key."""
    # A Pi may run Windows names or paths through; only the last part names the picture.
    stem = PurePosixPath((filename or "image").replace("\\", "/")).stem
    stem = _STRANGE.sub("_", stem).strip("._")[:_LONGEST_STEM] or "image"
    unique = hashlib.sha256(key.encode()).hexdigest()[:12]
    return images_dir / f"analyzed_images_from_{pi_id}" / f"{stem}-{unique}.jpg"


def save(path: Path, picture: bytes) -> None:
    """Write the picture so that a crash or a power cut leaves all of it or nothing under its name.

    Raises:
        OSError: the disk is full, or the directory cannot be written.
    """
    path.parent.mkdir(exist_ok=True)
    # The name is the picture's own: after a crash the next try overwrites the leftover.
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(picture)
            file.flush()
            os.fdatasync(file.fileno())
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
