"""Read a PNG's chunks: size, orientation, and what of it the decoder needs.

Every length is held against what is there: a chunk that claimed 4 GB made OpenCV 4.11 ask for them. OpenCV 4.11 also
writes past its buffers when a later frame of an animation is damaged, so that it gets the still picture only.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping

from . import orientation
from .encoded import Encoded, cut_short, damaged, refused

MAX_CHUNKS = 100_000
MAX_TEXT = 2**20
"""Bytes of metadata after decompression; a longer text is read up to there."""

_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_EXIF_TEXTS = (b"Raw profile type exif", b"Raw profile type APP1")
_XMP_TEXTS = (b"XML:com.adobe.xmp", b"Raw profile type xmp")


def parse(image: bytes) -> Encoded:
    """Describe a PNG.

    Raises:
        UndecodableError: it is damaged, or ends early.
    """
    view = memoryview(image)
    parts = [view[:8]]
    kinds = set()
    exif: list[bytes] = []
    texts: dict[bytes, tuple[bytes, bytes]] = {}
    for kind, start, end in _chunks(image):
        kinds.add(kind)
        if kind in _NEEDED:
            parts.append(view[start:end])
        elif kind == b"eXIf":
            exif.append(image[start + 8 : end - 4])
        elif kind in _TEXTS:
            keyword, _, rest = image[start + 8 : end - 4].partition(b"\0")
            texts.setdefault(keyword, (kind, rest))
        elif kind[0:1].isupper():
            raise refused(f"it needs {_shown(kind)}, which is not known")
    if b"IDAT" not in kinds:
        raise cut_short("it has no IDAT chunk")
    if bytes(parts[1][:8]) != b"\0\0\0\x0dIHDR":
        raise refused("it does not begin with an IHDR chunk of 13 bytes")
    width, height = struct.unpack_from(">II", parts[1], 8)
    return Encoded(
        width,
        height,
        b"".join(parts),
        orientation.find([*exif[:1], *_found(texts, _EXIF_TEXTS)], _found(texts, _XMP_TEXTS)),
    )


def _chunks(image: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's kind, start and end, up to IEND; the critical ones have the right checksum."""
    view = memoryview(image)
    start = 8
    for _ in range(MAX_CHUNKS):
        if start + 12 > len(image):
            raise cut_short("it has no IEND chunk")
        kind = image[start + 4 : start + 8]
        end = start + 12 + int.from_bytes(image[start : start + 4])
        if end > len(image):
            raise cut_short(f"within {_shown(kind)}")
        if kind[0:1].isupper() and zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(image[end - 4 : end]):
            raise damaged(f"the checksum of {_shown(kind)} is wrong")
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end
    raise refused(f"it has more than {MAX_CHUNKS} chunks")


def _shown(kind: bytes) -> str:
    return f"chunk {kind.decode('ascii')}" if kind.isalpha() else f"chunk {kind.hex()}"


def _found(texts: Mapping[bytes, tuple[bytes, bytes]], keywords: tuple[bytes, ...]) -> list[bytes]:
    return [_text(keyword, *texts[keyword]) for keyword in keywords if keyword in texts]


def _text(keyword: bytes, kind: bytes, rest: bytes) -> bytes:
    """Return what a text chunk holds behind its keyword; nothing where it is damaged."""
    compressed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        compressed = rest[0:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]
    if compressed:
        try:
            rest = zlib.decompressobj().decompress(rest, MAX_TEXT)
        except zlib.error:
            return b""
    if keyword.startswith(b"Raw profile"):
        try:
            # A line with its name, one with its length, and then the profile in hexadecimal digits.
            _, _, digits = rest[:MAX_TEXT].lstrip().split(b"\n", 2)
            return bytes.fromhex(digits.decode("ascii"))
        except ValueError:
            return b""
    return rest
