"""When a photograph was taken, as its EXIF data say. Pure, without a library: a Pi has none for it."""

import re
import struct
from datetime import UTC, datetime, timedelta, timezone

_EXIF_DIRECTORY = 0x8769
_TIMES = [  # tags of a time, its fraction of a second and its zone, the best first
    (0x9003, 0x9291, 0x9011),  # taken
    (0x9004, 0x9292, 0x9012),  # made digital
    (0x0132, 0x9290, 0x9010),  # changed: what a camera without the others has
]
_ASCII = 2
_MOST_ENTRIES = 500
_TIME = re.compile(r"(\d{4})[:/.-](\d\d)[:/.-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_ZONE = re.compile(r"([+-])(\d\d):?(\d\d)")


def taken_at(exif: bytes) -> datetime | None:
    """Return the time in UTC, or None where there is none; never raises.

    A time without a zone, as most cameras write it, is one of this machine's zone.

    Args:
        exif: a TIFF header and what follows, as `structure.look` returns it.
    """
    texts = _texts(exif)
    for time_tag, fraction_tag, zone_tag in _TIMES:
        moment = _time(texts.get(time_tag, ""), texts.get(fraction_tag, ""), texts.get(zone_tag, ""))
        if moment is not None:
            return moment
    return None


def _time(text: str, fraction: str, zone: str) -> datetime | None:
    found = _TIME.match(text.strip())
    if found is None:
        return None
    digits = fraction.strip()
    microseconds = int(digits[:6].ljust(6, "0")) if digits.isascii() and digits.isdecimal() else 0
    try:
        moment = datetime(*map(int, found.groups()), microseconds, tzinfo=_zone(zone.strip()))  # type: ignore[misc, arg-type]
        return moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):  # the 31st of February, the year 0
        return None


def _zone(text: str) -> timezone | None:
    if text == "Z":
        return UTC
    found = _ZONE.fullmatch(text)
    if found is None:
        return None
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)


def _texts(exif: bytes) -> dict[int, str]:
    """Return the texts by their tags, of the first directory and of the EXIF directory that it names."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return {}
    try:
        (first,) = struct.unpack_from(order + "I", exif, 4)
        texts, further = _directory(exif, order, first)
        return texts | (_directory(exif, order, further)[0] if further else {})
    except struct.error:  # it ends within a directory
        return {}


def _directory(exif: bytes, order: str, offset: int) -> tuple[dict[int, str], int]:
    """Return the texts of a directory and where the EXIF directory is, 0 where it names none."""
    texts, further = {}, 0
    (count,) = struct.unpack_from(order + "H", exif, offset)
    for number in range(min(count, _MOST_ENTRIES)):
        entry = offset + 2 + 12 * number
        tag, kind, length, value = struct.unpack_from(order + "HHII", exif, entry)
        if tag == _EXIF_DIRECTORY:
            further = value
        elif kind == _ASCII:
            start = value if length > 4 else entry + 8
            texts[tag] = exif[start : start + min(length, 40)].split(b"\0")[0].decode("ascii", "replace")
    return texts, further
