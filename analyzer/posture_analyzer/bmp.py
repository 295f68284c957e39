"""Read a BMP's header: its size."""

import struct

from .encoded import Encoded, cut_short, refused

_OLDEST = 12
_HEADERS = (_OLDEST, 40, 52, 56, 64, 108, 124)
_PLAIN = 0
_MASKS = 3
"""Which bits are red, green and blue is said; the pixels are not compressed."""
_KNOWN_MASKS = ((0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F), (0xFF0000, 0xFF00, 0xFF))
_READS_MASKS = 56
"""From this size of the header on OpenCV follows any masks; with smaller ones it gives wrong colours to others."""


def parse(image: bytes) -> Encoded:
    """Describe a BMP.

    Raises:
        UndecodableError: its header is damaged, or it ends early.
    """
    if len(image) < 18:
        raise cut_short("within its header")
    pixels, header = struct.unpack_from("<II", image, 10)
    if header not in _HEADERS:
        raise refused(f"a BMP header of {header} bytes is not known")
    if len(image) < 14 + header:
        raise cut_short("within its header")
    if header == _OLDEST:
        width, height, _, bits = struct.unpack_from("<HHHH", image, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", image, 18)
        # A negative height says that the first row is the topmost one.
        height = abs(height)
    if width < 0:
        raise refused(f"a width of {width}")
    if compression == _MASKS and header < _READS_MASKS and _masks(image) not in _KNOWN_MASKS:
        raise refused("its bit masks are not supported")
    if compression in (_PLAIN, _MASKS) and pixels + (width * bits + 31) // 32 * 4 * height > len(image):
        raise cut_short("there are fewer bytes than its pixels need")
    return Encoded(width, height, image)


def _masks(image: bytes) -> tuple[int, ...]:
    return struct.unpack_from("<III", image, 54) if len(image) >= 66 else ()
