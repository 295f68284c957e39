"""How a picture must be turned to be upright, from its EXIF and XMP metadata.

Both are read here and not by a library: nothing that they hold can raise, and their size does not matter.
"""

import re
import struct
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

UPRIGHT = 1
EXIF_PREFIX = b"Exif\0\0"

_TAG = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
"""EXIF's integer types and how `struct` calls them: BYTE, SHORT, LONG and the same with a sign."""
_IN_XMP = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\s*["'<]""")
_TURNS = {
    1: (False, 0),
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 3),
    6: (False, 1),
    7: (True, 1),
    8: (False, 3),
}
"""Whether the picture is mirrored left to right first, and how many quarters it is then turned clockwise."""
_ROTATIONS = {1: cv2.ROTATE_90_CLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_COUNTERCLOCKWISE}


def find(exif: Sequence[bytes], xmp: Sequence[bytes]) -> int:
    """Return the orientation, 1 to 8, of the first EXIF block that has one, else of the first such XMP packet."""
    for block in exif:
        if (value := _in_exif(block)) is not None:
            return value if value in _TURNS else UPRIGHT
    for packet in xmp:
        if match := _IN_XMP.search(packet):
            return int(match[1])
    return UPRIGHT


def _in_exif(block: bytes) -> int | None:
    block = block.removeprefix(EXIF_PREFIX)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return None
    (start,) = struct.unpack_from(order + "I", block, 4)
    if start + 2 > len(block):
        return None
    (entries,) = struct.unpack_from(order + "H", block, start)
    for place in range(start + 2, min(start + 2 + 12 * entries, len(block) - 11), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", block, place)
        if tag == _TAG and kind in _INTEGERS and count:
            return int(struct.unpack_from(order + _INTEGERS[kind], block, place + 8)[0])
    return None


def turn(pixels: NDArray[np.uint8], orientation: int, *, rotate: int) -> NDArray[np.uint8]:
    """Return the picture upright by its orientation (1 to 8), then turned clockwise by `rotate` degrees."""
    mirrored, quarters = _TURNS[orientation]
    quarters = (quarters + rotate // 90) % 4
    if mirrored:
        cv2.flip(pixels, 1, dst=pixels)
    if quarters:
        return cv2.rotate(pixels, _ROTATIONS[quarters]).astype(np.uint8, copy=False)
    return pixels
