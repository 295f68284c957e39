"""`posture-analyzer image`: image files to postures, as a table or as the shape that tools read."""

import itertools
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
    unreadable: bool = False
    """The file itself could not be read, so nothing is known of the image."""

    def as_dict(self) -> dict[str, Any]:
        """Return the result as DESIGN's shape; angles in degrees, rounded to hundredths, None where not measured."""
        values = {
            name: round(value, 2) if isinstance(value, float) else value for name, value in asdict(self.posture).items()
        }
        return {"file": str(self.file), **values}


def analyse_files(files: Sequence[Path], settings: AnalysisSettings, *, save_to: Path | None) -> Iterator[FileResult]:
    """Yield what is found in each file; write the annotated pictures into `save_to` where given."""
    taken = {file.resolve() for file in files}
    with Analyst(settings) as analyst:
        for file in files:
            try:
                image = file.read_bytes()
            except OSError as error:
                problem = f"cannot read the file: {error.strerror}"
                yield FileResult(file, undecodable(problem).posture, problem, unreadable=True)
                continue
            analysis = analyst.analyse(image)
            if save_to is not None and analysis.annotated is not None:
                save_to.mkdir(parents=True, exist_ok=True)
                gallery.save(_free_name(save_to, file.stem, taken), analysis.annotated)
            yield FileResult(file, analysis.posture, analysis.problem)


def _free_name(directory: Path, stem: str, taken: set[Path]) -> Path:
    """Return a name that neither a file to analyse nor an earlier picture of this run has, and take it."""
    names = itertools.chain([f"{stem}.jpg"], (f"{stem}-{number}.jpg" for number in itertools.count(2)))
    path = next(path for path in (directory / name for name in names) if path.resolve() not in taken)
    taken.add(path.resolve())
    return path


def table(results: Sequence[FileResult]) -> str:
    """Return the results for a person to read."""
    header = ("file", "status", "neck", "body", "+-", "confidence")
    rows = [
        (
            str(result.file).encode(errors="replace").decode(),  # a name need not be text
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
