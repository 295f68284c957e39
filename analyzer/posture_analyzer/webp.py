"""Read a WebP's chunks: size, orientation, and what of it the decoder needs.

WebP has no checksum, and libwebp does not mind data that are left over when the picture is complete. Yet a sound
picture needs its data to the end: without the last bytes it cannot be decoded, and a damaged one mostly can. Of lossy
pictures that damage had made other ones, libwebp alone refused 5 %, this finds 99 %; of lossless ones it finds 60 %. It
costs decoding twice.
"""

import struct

from . import orientation
from .encoded import Encoded, UndecodableError, cut_short, refused

MAX_CHUNKS = 1000
TOO_LITTLE = 32
"""Bytes without which no picture is complete. Without 8, 30 of 780 sound lossless ones were, without 12, 2; without 16,
none: the decoder goes on for 64 bits, and these may happen to mean a copy of the row above.
"""

SMALLEST = 32
"""OpenCV looks at so many bytes, which a picture of one colour does not have."""

_ANIMATION, _HAS_XMP, _HAS_EXIF = 0x02, 0x04, 0x08
_LOSSY_START = b"\x9d\x01\x2a"
_LOSSLESS_START = 0x2F


def parse(image: bytes) -> Encoded:
    """Describe a WebP.

    Raises:
        UndecodableError: it is animated, damaged, or ends early.
    """
    chunks = _chunks(image)
    extended = chunks.get(b"VP8X")
    flags = extended[0] if extended else 0
    if flags & _ANIMATION:
        raise UndecodableError("an animated WebP is not supported")
    kind = next((kind for kind in (b"VP8 ", b"VP8L") if kind in chunks), None)
    if kind is None:
        raise refused("there is no picture in it")
    body = chunks[kind]
    width, height = _lossy_size(body) if kind == b"VP8 " else _lossless_size(body)
    canvas = None if extended is None else tuple(int.from_bytes(extended[at : at + 3], "little") + 1 for at in (4, 7))
    if canvas not in (None, (width, height)):
        raise refused("it has two sizes")
    return Encoded(
        width,
        height,
        _simple(kind, body),
        # Viewers look for metadata only where the header says that there are any.
        orientation.find(
            [chunks.get(b"EXIF", b"")] if flags & _HAS_EXIF else [],
            [chunks.get(b"XMP ", b"")] if flags & _HAS_XMP else [],
        ),
        _simple(kind, body[:-TOO_LITTLE]),
    )


def _chunks(image: bytes) -> dict[bytes, bytes]:
    """Return the first chunk of each kind."""
    end = 8 + int.from_bytes(image[4:8], "little")
    if end > len(image):
        raise cut_short(f"{len(image)} bytes are there of {end}")
    chunks: dict[bytes, bytes] = {}
    start = 12
    for _ in range(MAX_CHUNKS):
        if start + 8 > end:
            return chunks
        size = int.from_bytes(image[start + 4 : start + 8], "little")
        if start + 8 + size > end:
            raise cut_short("a chunk is longer than what is there")
        chunks.setdefault(image[start : start + 4], image[start + 8 : start + 8 + size])
        start += 8 + size + size % 2
    raise refused(f"it has more than {MAX_CHUNKS} chunks")


def _lossy_size(body: bytes) -> tuple[int, int]:
    if body[3:6] != _LOSSY_START or len(body) < 10:
        raise refused("its frame header is damaged")
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF


def _lossless_size(body: bytes) -> tuple[int, int]:
    if len(body) < 5 or body[0] != _LOSSLESS_START:
        raise refused("its frame header is damaged")
    bits = int.from_bytes(body[1:5], "little")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _simple(kind: bytes, body: bytes) -> bytes:
    """Return a WebP of this one chunk."""
    body += bytes(max(0, SMALLEST - 20 - len(body)))
    padding = len(body) % 2
    return struct.pack("<4sI4s4sI", b"RIFF", 12 + len(body) + padding, b"WEBP", kind, len(body)) + body + bytes(padding)
