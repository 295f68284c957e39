"""Decode with OpenCV, and hear what its libraries say: of damage they tell the standard error and nobody else."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

from .encoded import Encoded, damaged

_STDERR = 2
_READ = 4096
"""Bytes of what was said; the first line tells the reason."""
_LONGEST_REASON = 200
_HARMLESS = re.compile(
    # Some cameras pad their data before a restart marker or the end: 1 to 10 bytes were reported of sound pictures.
    r"Corrupt JPEG data: (?:\d|1[0-6]) extraneous bytes before marker 0xd[0-79]$"
    # Where the picture cannot be trusted, libpng says "error".
    r"|libpng warning: "
    # OpenCV's own log: where a picture is wrong there are no pixels.
    r"|\[ *[A-Z]+:"
)
_READ_AHEAD = 8
"""Bytes that libjpeg has taken in before it knows that the picture is complete."""
_BEFORE_END = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9$")
_OPENCV_FRAME = re.compile(r"\[ *[A-Z]+:.*error: \(.*?\) |\[ *[A-Z]+:.*?global \S+ \S+ | in function '.*$")


def decode(encoded: Encoded) -> NDArray[np.uint8]:
    """Return the pixels as they are stored: (height, width, 3), blue, green, red.

    Meanwhile the process's standard error is taken away: no other thread may write to it.

    Raises:
        UndecodableError: the data are damaged.
        MemoryError: there is not enough.
    """
    pixels, said = _decode(encoded.data)
    if pixels is None:
        raise damaged(said[-1] if said else "the decoder gives it up")
    for line in said:
        if not _HARMLESS.match(line) and not _is_padding(line, encoded.padding):
            raise damaged(line)
    if encoded.too_little is not None and _decode(encoded.too_little)[0] is not None:
        raise damaged("the picture is complete before its data end")
    return pixels


def _decode(data: bytes) -> tuple[NDArray[np.uint8] | None, list[str]]:
    """Return the pixels, or None, and the lines that were said."""
    pixels: NDArray[np.uint8] | None = None
    with _standard_error() as said:
        try:
            found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            pixels = None if found is None else found.astype(np.uint8, copy=False)
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem:
                raise MemoryError from None
            os.write(_STDERR, error.err.encode())
        lines = os.pread(said, _READ, 0).decode("ascii", "replace").splitlines()
    if pixels is None:
        lines = [_OPENCV_FRAME.sub("", line) for line in lines]
    return pixels, [re.sub(r"[^ -~]", "?", line)[:_LONGEST_REASON] for line in lines if line.strip()]


def _is_padding(line: str, padding: int) -> bool:
    """Whether the warning is of zeros at the end none of which is part of the picture, as in the place of lost data."""
    found = _BEFORE_END.match(line)
    return found is not None and 0 <= padding - int(found[1]) <= _READ_AHEAD


@contextmanager
def _standard_error() -> Iterator[int]:
    """Let file descriptor 2 be a file in memory, and give the descriptor of that file."""
    kept = os.dup(_STDERR)
    said = os.memfd_create("standard-error")
    try:
        os.dup2(said, _STDERR)
        yield said
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(said)
