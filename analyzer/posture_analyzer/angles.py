"""Posture from landmarks: neck and body angle, how far they can be trusted, and the verdict. Pure.

A picture is looked at as it is and mirrored, because the pose model is not symmetric and its region of interest is not
steady; the mean of both is steadier than either, and their difference tells how steady. Landmarks of the mirrored look
come here already turned back. Midpoints of left and right are used: which side is nearer to the camera cannot be told
reliably from the model's visibilities.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Landmarks = NDArray[np.float64]
"""Shape (33, 3), in MediaPipe's order: x and y in pixels of the picture, visibility 0 to 1."""

Status = Literal["Good", "Bad", "No person detected", "Landmarks not visible", "Undecodable image"]
Confidence = Literal["sure", "borderline", "uncertain"]

EARS, SHOULDERS, HIPS = (7, 8), (11, 12), (23, 24)
MIN_VISIBILITY = 0.5
NEAR_VISIBILITY = 0.1
"""A change of a midpoint's visibility by so much, or of its place by `NEAR_EDGE` of the frame, is the model's noise."""
NEAR_EDGE = 0.02
BORDER_DEGREES = 3.0
MAX_DIFFERENCE_DEGREES = 6.0


@dataclass(frozen=True, slots=True)
class Look:
    """The angles in one look at a picture: signed degrees from the vertical, positive to the right."""

    neck: float | None
    body: float | None
    near: bool = field(default=False, compare=False)
    """A midpoint is only just visible, or only just not."""


@dataclass(frozen=True, slots=True)
class Posture:
    """What a picture says about a person: absolute degrees, None where it cannot be measured."""

    posture_status: Status
    neck_angle: float | None = None
    body_angle: float | None = None
    uncertainty: float | None = None
    confidence: Confidence | None = None
    landmarks_detected: bool = False


def look(landmarks: Landmarks, *, width: int, height: int) -> Look:
    """Measure the angles in one look at a picture of `width` x `height` pixels."""
    pairs = (EARS, SHOULDERS, HIPS)
    ear, shoulder, hip = (midpoint(landmarks, pair, width=width, height=height) for pair in pairs)
    near = any(_is_near(landmarks, pair, width=width, height=height) for pair in pairs)
    return Look(neck=_from_vertical(shoulder, ear), body=_from_vertical(hip, shoulder), near=near)


def midpoint(landmarks: Landmarks, pair: tuple[int, int], *, width: int, height: int) -> tuple[float, float] | None:
    """Return the point between two landmarks in pixels, or None where it is outside the frame or not visible."""
    x, y, visibility = landmarks[list(pair)].mean(axis=0)
    inside = 0 <= x < width and 0 <= y < height
    return (float(x), float(y)) if inside and visibility >= MIN_VISIBILITY else None


def _is_near(landmarks: Landmarks, pair: tuple[int, int], *, width: int, height: int) -> bool:
    x, y, visibility = landmarks[list(pair)].mean(axis=0)
    inside = min(x / width, 1 - x / width, y / height, 1 - y / height)
    excess = min(inside / NEAR_EDGE, (visibility - MIN_VISIBILITY) / NEAR_VISIBILITY)
    return bool(-1 < excess < 1)


def _from_vertical(lower: tuple[float, float] | None, upper: tuple[float, float] | None) -> float | None:
    if lower is None or upper is None:
        return None
    return math.degrees(math.atan2(upper[0] - lower[0], lower[1] - upper[1]))


def judge(
    looks: Sequence[Look | None], *, neck_threshold: float, body_threshold: float, may_miss: bool = False
) -> Posture:
    """Give the verdict on one person from one or two looks; a look that found nobody is None.

    `may_miss` says that looks at this picture may find nobody although somebody is there.
    """
    found = [each for each in looks if each is not None]
    if not found:
        return Posture("No person detected", confidence="uncertain" if may_miss else "sure")
    neck, neck_difference = _combine([each.neck for each in found])
    body, body_difference = _combine([each.body for each in found])
    differences = [difference for difference in (neck_difference, body_difference) if difference is not None]
    margins = [
        abs(angle - threshold)
        for angle, threshold in ((neck, neck_threshold), (body, body_threshold))
        if angle is not None
    ]
    uncertainty = max(differences) / 2 if differences else None

    def status_off_by(error: float) -> Status:
        if neck is None or body is None:
            return "Landmarks not visible"
        return "Good" if neck + error < neck_threshold and body + error < body_threshold else "Bad"

    status = status_off_by(0)
    # Which angles can be measured decides this status, and not how large they are.
    hidden = status == "Landmarks not visible"
    confidence: Confidence = "sure"
    if (
        len(found) < len(looks)
        or max(differences, default=0) > MAX_DIFFERENCE_DEGREES
        or len({(each.neck is None, each.body is None) for each in found}) > 1
        or status_off_by(-(uncertainty or 0)) != status_off_by(uncertainty or 0)
    ):
        confidence = "uncertain"
    elif any(each.near for each in found) if hidden else min(margins, default=math.inf) <= BORDER_DEGREES:
        confidence = "borderline"
    return Posture(
        status,
        neck_angle=neck,
        body_angle=body,
        uncertainty=uncertainty,
        confidence=confidence,
        landmarks_detected=True,
    )


def _combine(angles: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Return the absolute mean of one or two angles, and how much two differ.

    Both are None unless every look could measure: a verdict must not rest on a point that one of two looks cannot see.
    """
    measured = [angle for angle in angles if angle is not None]
    if len(measured) < len(angles):
        return None, None
    first, *other = measured
    if not other:
        return abs(first), None
    # On a circle: 179 and -179 degrees differ by 2, and their mean is 180.
    difference = math.remainder(other[0] - first, 360)
    return abs(math.remainder(first + difference / 2, 360)), abs(difference)
