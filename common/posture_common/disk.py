"""The floor of free space: below it nothing of ours adds to a disk that others need too, such as the database."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

_BOUND = re.compile(r"(?P<number>\d+(\.\d+)?) ?(?P<unit>%|[kMGT]?B)?")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, slots=True)
class Bound:
    """So much of a disk: a percentage of it, or bytes."""

    number: float
    unit: str

    def of(self, total: int) -> int:
        """Return it in bytes, for a disk of `total` bytes."""
        return int(self.number * (total / 100 if self.unit == "%" else _UNITS[self.unit]))


@dataclass(frozen=True, slots=True)
class Floor:
    """The free space that has to stay, as it was written: the least of its bounds."""

    text: str
    bounds: tuple[Bound, ...]

    def of(self, total: int) -> int:
        """Return it in bytes, for a disk of `total` bytes."""
        return min(bound.of(total) for bound in self.bounds)


def floor(text: object) -> Floor:
    """Read a floor: `5%`, `2GB`, or both with `or` between them, of which the smaller counts; `0` is none.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(text, Floor):
        return text
    found = [_BOUND.fullmatch(part.strip()) for part in str(text).split(" or ")]
    bounds = tuple(Bound(float(match["number"]), match["unit"] or "B") for match in found if match)
    if len(bounds) < len(found) or any(bound.unit == "%" and bound.number >= 100 for bound in bounds):
        raise ValueError("expected free space such as 5%, 2GB, '5% or 2GB' (the smaller counts), or 0 for no floor")
    return Floor(str(text), bounds)


# On a Pi's card of 32 GB 5 % are 1.6 GB; on a disk of 4 TB they would be 200 GB that nobody may use.
DEFAULT_FLOOR = floor("5% or 2GB")
FloorSetting = Annotated[Floor, BeforeValidator(floor)]


@dataclass(frozen=True, slots=True)
class Room:
    """What a disk has and has to keep, in bytes."""

    path: Path
    free: int
    total: int
    floor: int
    floor_text: str

    def lacks(self, size: int = 0) -> bool:
        """Whether less than the floor would be free with `size` bytes more on it."""
        return self.free - size < self.floor

    @property
    def shortage(self) -> str:
        """What is wrong where space lacks, in words that stay while the free space changes."""
        return f"the disk of {self.path} has less free space than {self._floor}"

    def __str__(self) -> str:
        """Say the same with the space that is free now, and what to do."""
        return (
            f"the disk of {self.path} has {_readable(self.free)} of {_readable(self.total)} free, less than "
            f"{self._floor}: free space on it, or lower the floor; until then images wait where they are"
        )

    @property
    def _floor(self) -> str:
        return f"the floor of {_readable(self.floor)} (POSTURE_DISK_FLOOR={self.floor_text})"


def room(path: Path, floor: Floor) -> Room:
    """Return what the disk of `path` has for its user, and has to keep.

    Raises:
        OSError: it cannot be asked.
    """
    usage = shutil.disk_usage(path)
    return Room(path, usage.free, usage.total, floor.of(usage.total), floor.text)


def _readable(size: int) -> str:
    unit = next((unit for unit in ("TB", "GB", "MB", "kB") if size >= _UNITS[unit]), "B")
    return f"{size / _UNITS[unit]:.3g} {unit}" if size < 1000 * _UNITS[unit] else f"{size / _UNITS[unit]:.0f} {unit}"
