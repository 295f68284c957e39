"""What of a picture of a person is kept: decided before anything of it is written. Pure, but for the pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from .angles import EARS, MIN_VISIBILITY, SHOULDERS, Landmarks, Posture
from .picture import Pixels

Pictures = Literal["all", "uncertain", "skeleton", "none"]
Backdrop = Literal["picture", "blurred", "grey"]
"""What is drawn on: the picture, the picture with every known head blurred, or plain grey."""

HEAD = slice(0, 11)
"""Nose, eyes, ears and mouth."""
GREY = 96
_SPREAD = 2.5
"""From the middle of the head's landmarks, around nose and eyes, to the edge of what is blurred: so many times as far
as the landmark that is farthest from it. Chin and hair are within it from the front.
"""
_NECK = 0.9
"""But at least so many times the way from the ears to the shoulders: from the side the landmarks lie close together."""
_LEAST = 0.02
"""And so much of the picture's longer side."""
_CELLS = 4
"""So many mean colours are left across a head."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """Why no picture is kept."""

    reason: Literal["setting", "no_head"]
    text: str


def backdrop(
    looks: Sequence[Landmarks], posture: Posture, *, pictures: Pictures, blur_faces: bool, size: tuple[int, int]
) -> Backdrop | Withheld:
    """Return what the skeleton is drawn on, or why nothing of the picture is kept.

    Args:
        looks: the landmarks of each look that found somebody.
        posture: the verdict.
        pictures: which pictures are kept.
        blur_faces: whether only with heads blurred.
        size: width and height of the picture that the landmarks are pixels of.
    """
    if pictures == "none" or (pictures == "uncertain" and posture.confidence != "uncertain"):
        return Withheld("setting", f"no picture is kept: POSTURE_PICTURES is {pictures}")
    if pictures == "skeleton":
        return "grey"
    if not blur_faces:
        return "picture"
    # One that cannot be relied on may stand for a face elsewhere in the picture.
    if not looks or not all(has_head(landmarks, *size) for landmarks in looks):
        return Withheld("no_head", "no picture is kept: POSTURE_BLUR_FACES is set and no head is surely found in it")
    return "blurred"


def has_head(landmarks: Landmarks, width: int, height: int) -> bool:
    """Whether the head is visible, with its middle in the frame."""
    x, y, visibility = landmarks[HEAD].mean(axis=0)
    return bool(visibility >= MIN_VISIBILITY and 0 <= x < width and 0 <= y < height)


def blur(pixels: Pixels, looks: Sequence[Landmarks]) -> None:
    """Leave a few mean colours of each head in `pixels`, which `looks` are pixels of."""
    height, width = pixels.shape[:2]
    for landmarks in looks:
        x, y, radius = _head(landmarks, longer_side=max(width, height))
        left, top = max(0, math.floor(x - radius)), max(0, math.floor(y - radius))
        right, bottom = min(width, math.ceil(x + radius) + 1), min(height, math.ceil(y + radius) + 1)
        if left >= right or top >= bottom:
            continue
        box = pixels[top:bottom, left:right]
        cell = 2 * radius / _CELLS
        cells = max(1, round((right - left) / cell)), max(1, round((bottom - top) / cell))
        means = cv2.resize(box, cells, interpolation=cv2.INTER_AREA)
        box[:] = cv2.resize(means, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)


def _head(landmarks: Landmarks, *, longer_side: int) -> tuple[float, float, float]:
    """Return middle and radius of the head with a generous margin."""
    x, y, _ = (float(mean) for mean in landmarks[HEAD].mean(axis=0))
    spread = float(np.hypot(landmarks[HEAD, 0] - x, landmarks[HEAD, 1] - y).max())
    ears, shoulders = (landmarks[list(pair), :2].mean(axis=0) for pair in (EARS, SHOULDERS))
    neck = float(np.hypot(*(ears - shoulders)))
    return x, y, max(_SPREAD * spread, _NECK * neck, _LEAST * longer_side)
