"""`posture-analyzer image`: image files to postures, as a table or as the shape that tools read."""

import errno
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import gallery
from .analysis import Analyst, undecodable
from .angles import Posture
from .settings import AnalysisSettings


@dataclass(frozen=True, slots=True)
class FileResult:
    """What was found in a file."""

    file: Path
    posture: Posture
    problem: str | None = None
    """Why there is no posture, or no annotated picture."""
    failed: bool = False
    """The file could not be read, or its annotated picture not be written: the image itself is not to blame."""

    def as_dict(self) -> dict[str, Any]:
        """Return the result as tools read it; angles in degrees, rounded to hundredths, None where not measured."""
        values = {
            name: round(value, 2) if isinstance(value, float) else value for name, value in asdict(self.posture).items()
        }
        return {"file": str(self.file), **values, "problem": self.problem}


def analyse_files(
    files: Sequence[Path], settings: AnalysisSettings, *, save_to: Path | None, rotate: int = 0
) -> Iterator[FileResult]:
    """Yield what is found in each file; write the annotated pictures into the directory `save_to` where given.

    The pictures are turned clockwise by `rotate` degrees, as those of a camera that hangs so are in a stream.
    What is wrong with one file is its result's problem, and the others follow.
    """
    taken = {os.path.realpath(file) for file in files}
    with Analyst(settings) as analyst:
        for file in files:
            try:
                image = _read(file, max_bytes=settings.max_image_bytes)
            except OSError as error:
                problem = f"cannot read the file: {error.strerror}"
                yield FileResult(file, undecodable(problem).posture, problem, failed=True)
                continue
            analysis = analyst.analyse(image, rotate=rotate)
            unsaved = None
            if save_to is not None and analysis.annotated is not None:
                unsaved = _save(save_to, file.stem, analysis.annotated, taken)
            withheld = analysis.withheld.text if save_to is not None and analysis.withheld else None
            said = analysis.problem or unsaved or withheld
            yield FileResult(file, analysis.posture, said, failed=unsaved is not None)


def _read(file: Path, *, max_bytes: int) -> bytes:
    """Return the file's bytes; never wait for a pipe, or read on for ever.

    Raises:
        OSError: there is no such file, it cannot be read, or it has more than `max_bytes`.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as opened:  # noqa: PTH123  (it is open already)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a regular file")
        image = opened.read(max_bytes + 1)
    if len(image) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than the {max_bytes} bytes of POSTURE_MAX_IMAGE_BYTES")
    return image


def _save(directory: Path, stem: str, picture: bytes, taken: set[str]) -> str | None:
    """Write an annotated picture; return what prevents that, or None."""
    try:
        path = _free_name(directory, stem, taken)
        gallery.save(path, picture)
    except OSError as error:
        return f"cannot write the annotated picture into {directory}: {error.strerror}"
    return None


def _free_name(directory: Path, stem: str, taken: set[str]) -> Path:
    """Return a name that neither a file to analyse nor an earlier picture of this run has, and take it."""
    longest = gallery.longest_name(directory)
    endings = itertools.chain([".jpg"], (f"-{number}.jpg" for number in itertools.count(2)))
    paths = (directory / f"{_shortened(stem, longest - len(ending))}{ending}" for ending in endings)
    path = next(path for path in paths if os.path.realpath(path) not in taken)
    taken.add(os.path.realpath(path))
    return path


def _shortened(text: str, longest: int) -> str:
    """Return as many whole characters of the text as fit into `longest` bytes of a file's name."""
    while len(os.fsencode(text)) > longest:
        text = text[:-1]
    return text


def table(results: Sequence[FileResult]) -> str:
    """Return the results for a person to read."""
    header = ("file", "status", "neck", "body", "+-", "confidence")
    rows = [
        (
            "".join(character if character.isprintable() else "?" for character in str(result.file)),
            result.posture.posture_status,
            _degrees(result.posture.neck_angle),
            _degrees(result.posture.body_angle),
            _degrees(result.posture.uncertainty),
            result.problem or result.posture.confidence or "",
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 2 <= column <= 4 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    )


def _degrees(angle: float | None) -> str:
    return "-" if angle is None else f"{angle:.1f}"
