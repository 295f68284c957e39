"""Encoded images to pixels and back."""

import cv2
import numpy as np
from numpy.typing import NDArray

from . import bmp, decoder, jpeg, kinds, orientation, png, webp
from .encoded import UndecodableError as UndecodableError

Pixels = NDArray[np.uint8]
"""Shape (height, width, 3), blue, green, red: OpenCV's order."""

MAX_SIDE = 65_500
"""What a JPEG can have, and so the annotated picture."""
LONGEST_SIDE = 512
BLUR = 1.0
"""Standard deviation in pixels. The model samples its region without a filter of its own; on 18 pictures a light
blur raised the share of necks that stay within 3 degrees under harmless changes from 94 to 96 %.
"""

_PARSERS = {"JPEG": jpeg.parse, "PNG": png.parse, "WebP": webp.parse, "BMP": bmp.parse}


def read(image: bytes, *, max_pixels: int, rotate: int = 0) -> Pixels:
    """Decode an image, upright as its EXIF or XMP orientation says, then turned clockwise by `rotate` degrees.

    No decoder sees another format, a larger picture, or more of the image than it needs: 12,000 x 12,000 pixels would
    take 2 GB and four seconds. What a decoder writes to the standard error is taken: nothing else of the process may
    write to it at the same time.

    Args:
        image: a JPEG, PNG, WebP or BMP.
        max_pixels: the most pixels that are decoded.
        rotate: 0, 90, 180 or 270.

    Raises:
        UndecodableError: the format is unknown, the size is not allowed, or the data is damaged or ends early.
    """
    kind = kinds.kind_of(image)
    if kind not in _PARSERS:
        seen = f"it looks like {kind}, " if kind else ""
        raise UndecodableError(f"{seen}not a JPEG, PNG, WebP or BMP image")
    encoded = _PARSERS[kind](image)
    width, height = encoded.width, encoded.height
    if not width or not height:
        raise UndecodableError(f"the image's header is refused: {width} x {height} pixels")
    if width * height > max_pixels:
        raise UndecodableError(f"{width} x {height} pixels are more than the {max_pixels} of POSTURE_MAX_PIXELS")
    if max(width, height) > MAX_SIDE:
        raise UndecodableError(f"{width} x {height} pixels: a side is longer than {MAX_SIDE}")
    return orientation.turn(decoder.decode(encoded), encoded.orientation, rotate=rotate)


def resize(pixels: Pixels) -> Pixels:
    """Return the picture with `LONGEST_SIDE` as its longest side, slightly blurred.

    Large pictures are halved first, each pixel the mean of four, so that the last step never skips pixels: as steady as
    averaging over exact areas and, at 1920 x 1080, ten times as fast.
    """
    while max(pixels.shape[:2]) >= 2 * LONGEST_SIDE:
        height, width = pixels.shape[:2]
        pixels = cv2.resize(pixels, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA).astype(
            np.uint8, copy=False
        )
    height, width = pixels.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(small, (0, 0), BLUR).astype(np.uint8, copy=False)


def narrowed(small: Pixels) -> Pixels:
    """Return the picture half as wide: people whom a camera's wrong mode made wide are found in it."""
    size = (max(1, small.shape[1] // 2), small.shape[0])
    return cv2.resize(small, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def to_jpeg(pixels: Pixels, *, quality: int) -> bytes:
    """Encode a picture as JPEG."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
