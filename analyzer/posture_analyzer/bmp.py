"""Read a BMP's header: its size."""

import struct

from .encoded import Encoded, cut_short, refused

_OLDEST = 12
_HEADERS = (_OLDEST, 40, 52, 56, 64, 108, 124)
_PLAIN = (0, 3, 6)
"""Compressions that are none: RGB, and RGB with its bits given."""


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
    if compression in _PLAIN and pixels + (width * bits + 31) // 32 * 4 * height > len(image):
        raise cut_short("there are fewer bytes than its pixels need")
    return Encoded(width, height, image)
