"""Where an encoded picture ends in its file, and its EXIF data. Nothing is decoded, lengths are followed. Pure."""

import re
import struct
from dataclasses import dataclass
from enum import Enum

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF = b"Exif\0\0"
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""A marker of a JPEG that ends what was before: no stuffed byte, no restart, not the start of a run of 0xff."""
_SAMSUNGS_END = b"SEFT"
"""The last bytes of a file of Samsung's phones, which keep something of their own behind the picture."""
_APP1, _START, _END = 0xE1, 0xD8, 0xD9
_UNWRITTEN, _UNWRITTEN_BMP = 64, 4096
"""So many zero bytes at the end of a format without an end mark are room that was not written yet. A BMP may be black
there."""


class Ending(Enum):
    """What the end of a file says about its picture."""

    WHOLE = "the file ends where the picture does"
    MORE = "something of unknown length follows the picture, or it is not a format that we know"
    OPEN = "the end of the picture is missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What was found: how the file ends, and the EXIF data (a TIFF header and what follows), empty without."""

    ending: Ending
    exif: bytes = b""


def look(data: bytes) -> Structure:
    """Return the structure of a file's content; never raises."""
    try:
        if data.startswith(_JPEG):
            return _jpeg(data)
        if data.startswith(_PNG):
            return _png(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith(b"BM"):
            return _bmp(data)
    except struct.error:  # it ends within a header
        return Structure(ending=Ending.OPEN)
    unwritten = _is_unwritten(data, _UNWRITTEN) or not data[:16].strip(b"\0")
    return Structure(ending=Ending.OPEN if unwritten else Ending.MORE)


def _ending(data: bytes, end: int) -> Ending:
    if end > len(data):
        return Ending.OPEN
    return Ending.WHOLE if end == len(data) else Ending.MORE


def _jpeg(data: bytes) -> Structure:
    end, exif = _jpeg_end(data, 0)
    # A phone's picture may have further ones behind it: its depth, its brightness, the other eye's.
    while end is not None and data.startswith(_JPEG, end):
        end, _ = _jpeg_end(data, end)
    if end is None:
        return Structure(ending=Ending.OPEN, exif=exif)
    if data.startswith(b"ftyp", end + 4):
        film = Ending.OPEN if _is_unwritten(data, _UNWRITTEN) else _ending(data, _film_end(data, end))
        return Structure(ending=film, exif=exif)
    return Structure(ending=Ending.WHOLE if data.endswith(_SAMSUNGS_END) else _ending(data, end), exif=exif)


def _film_end(data: bytes, start: int) -> int:
    """Return where the boxes of an MP4 end, as phones keep a short film behind the picture."""
    end = start
    while end < len(data):
        (size,) = struct.unpack_from(">I", data, end)
        if size == 1:
            (size,) = struct.unpack_from(">8xQ", data, end)
        if size < 8:
            break
        end += size
    return end


def _jpeg_end(data: bytes, start: int) -> tuple[int | None, bytes]:
    exif = b""
    position = start + 2
    while marker := _MARKER.search(data, position):
        position = marker.end()
        kind = data[position - 1]
        if kind == _END:
            return position, exif
        if kind == _START:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        if kind == _APP1 and not exif and data.startswith(_EXIF, position + 2):
            exif = data[position + 2 + len(_EXIF) : position + length]
        position += length
    return None, exif


def _png(data: bytes) -> Structure:
    exif, kind, position = b"", b"", len(_PNG)
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"\0\0\0\0":  # not written yet, and maybe megabytes of it
            return Structure(ending=Ending.OPEN, exif=exif)
        if kind == b"eXIf":
            exif = data[position + 8 : position + 8 + length]
        position += length + 12
    return Structure(ending=_ending(data, position), exif=exif)


def _webp(data: bytes) -> Structure:
    (length,) = struct.unpack_from("<I", data, 4)
    exif, position = b"", 12
    while not exif and position + 8 <= min(len(data), length + 8):
        kind, size = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            exif = data[position + 8 : position + 8 + size].removeprefix(_EXIF)
        position += 8 + size + size % 2
    return Structure(ending=Ending.OPEN if _is_unwritten(data, _UNWRITTEN) else _ending(data, length + 8), exif=exif)


def _bmp(data: bytes) -> Structure:
    declared, pixels, header = struct.unpack_from("<I4xII", data, 2)
    if header == 12:
        width, height, bits = struct.unpack_from("<HH2xH", data, 18)
        size = 0
    else:
        width, height, bits, compression, size = struct.unpack_from("<ii2xHII", data, 18)
        if compression not in {1, 2}:  # the size may be left out, and may be wrong, where rows are not run lengths
            size = 0
    end = pixels + (size or (width * bits + 31) // 32 * 4 * abs(height))
    if _is_unwritten(data, _UNWRITTEN_BMP):
        return Structure(ending=Ending.OPEN)
    return Structure(ending=Ending.WHOLE if len(data) == declared >= end else _ending(data, end))


def _is_unwritten(data: bytes, room: int) -> bool:
    return len(data) > room and not data[-room:].strip(b"\0")
