"""Posture from landmarks: neck and body angle, how far they can be trusted, and the verdict. Pure.

A picture is looked at as it is and mirrored, because the pose model is not symmetric and its region of interest is not
steady; the mean of both is steadier than either, and their difference tells how steady. Landmarks of the mirrored look
come here already turned back. Midpoints of left and right are used: which side is nearer to the camera cannot be told
reliably from the model's visibilities.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Landmarks = NDArray[np.float64]
"""Shape (33, 3), in MediaPipe's order: x and y in pixels of the picture, visibility 0 to 1."""

Status = Literal["Good", "Bad", "No person detected", "Landmarks not visible", "Undecodable image"]
Confidence = Literal["sure", "borderline", "uncertain"]

EARS, SHOULDERS, HIPS = (7, 8), (11, 12), (23, 24)
MIN_VISIBILITY = 0.5
BORDER_DEGREES = 3.0
MAX_DIFFERENCE_DEGREES = 6.0


@dataclass(frozen=True, slots=True)
class Look:
    """The angles in one look at a picture: signed degrees from the vertical, positive to the right."""

    neck: float | None
    body: float | None


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
    ear, shoulder, hip = (midpoint(landmarks, pair, width=width, height=height) for pair in (EARS, SHOULDERS, HIPS))
    return Look(neck=_from_vertical(shoulder, ear), body=_from_vertical(hip, shoulder))


def midpoint(landmarks: Landmarks, pair: tuple[int, int], *, width: int, height: int) -> tuple[float, float] | None:
    """Return the point between two landmarks in pixels, or None where it is outside the frame or not visible."""
    x, y, visibility = landmarks[list(pair)].mean(axis=0)
    inside = 0 <= x < width and 0 <= y < height
    return (float(x), float(y)) if inside and visibility >= MIN_VISIBILITY else None


def _from_vertical(lower: tuple[float, float] | None, upper: tuple[float, float] | None) -> float | None:
    if lower is None or upper is None:
        return None
    return math.degrees(math.atan2(upper[0] - lower[0], lower[1] - upper[1]))


def judge(looks: Sequence[Look | None], *, neck_threshold: float, body_threshold: float) -> Posture:
    """Give the verdict on one person from one or two looks; a look that found nobody is None."""
    found = [each for each in looks if each is not None]
    if not found:
        return Posture("No person detected", confidence="sure")
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

    confidence: Confidence = "sure"
    if (
        len(found) < len(looks)
        or max(differences, default=0) > MAX_DIFFERENCE_DEGREES
        or status_off_by(-(uncertainty or 0)) != status_off_by(uncertainty or 0)
    ):
        confidence = "uncertain"
    elif min(margins, default=math.inf) <= BORDER_DEGREES:
        confidence = "borderline"
    return Posture(
        status_off_by(0),
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
