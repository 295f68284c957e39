"""The annotated picture: skeleton, the two measured lines with their verticals, and the verdict."""

from collections.abc import Sequence

import cv2
import numpy as np

from . import privacy
from .angles import EARS, HIPS, SHOULDERS, Landmarks, Posture, midpoint
from .picture import Pixels
from .privacy import Backdrop

Color = tuple[int, int, int]

GREEN, RED, GREY, WHITE, BLACK = (80, 200, 80), (60, 60, 230), (160, 160, 160), (255, 255, 255), (0, 0, 0)
STATUS_COLORS: dict[str, Color] = {"Good": GREEN, "Bad": RED}
BONES = ((11, 12), (11, 13), (13, 15), (12, 14), (14, 16), (11, 23), (12, 24), (23, 24), (23, 25), (25, 27), (24, 26),
         (26, 28), (7, 8))  # fmt: skip
FONT = cv2.FONT_HERSHEY_SIMPLEX


def annotate(pixels: Pixels, looks: Sequence[Landmarks], posture: Posture, *, backdrop: Backdrop = "picture") -> None:
    """Draw on `pixels` as `backdrop` leaves them; `looks` are in its pixels, and the first one's skeleton is drawn."""
    if backdrop == "grey":
        pixels[:] = privacy.GREY
    elif backdrop == "blurred":
        privacy.blur(pixels, looks)
    color = STATUS_COLORS.get(posture.posture_status, GREY)
    unit = max(pixels.shape[:2]) / 640
    if looks:
        _draw_person(pixels, looks[0], color, unit)
    _write(pixels, caption(posture), color, unit)


def caption(posture: Posture) -> str:
    """Return the verdict and the angles in ASCII, which is what OpenCV's fonts have."""
    parts: list[str] = [posture.posture_status]
    if posture.neck_angle is not None:
        parts.append(f"neck {posture.neck_angle:.0f}")
    if posture.body_angle is not None:
        parts.append(f"body {posture.body_angle:.0f}")
    if posture.uncertainty is not None:
        parts.append(f"+-{posture.uncertainty:.1f} deg")
    if posture.confidence in ("borderline", "uncertain"):
        parts.append(posture.confidence)
    return "  ".join(parts)


def _draw_person(pixels: Pixels, landmarks: Landmarks, color: Color, unit: float) -> None:
    height, width = pixels.shape[:2]
    thin, thick = max(1, round(unit)), max(2, round(3 * unit))
    # Points far outside the frame would overflow OpenCV's integers.
    points = np.clip(landmarks[:, :2], -width - height, 2 * (width + height)).round().astype(int).tolist()
    for start, end in BONES:
        cv2.line(pixels, points[start], points[end], WHITE, thin, cv2.LINE_AA)
    ear, shoulder, hip = (midpoint(landmarks, pair, width=width, height=height) for pair in (EARS, SHOULDERS, HIPS))
    for lower, upper in ((shoulder, ear), (hip, shoulder)):
        if lower is None or upper is None:
            continue
        foot, head = _whole(lower), _whole(upper)
        cv2.line(pixels, foot, (foot[0], head[1]), GREY, thin, cv2.LINE_AA)
        cv2.line(pixels, foot, head, color, thick, cv2.LINE_AA)
        for point in (foot, head):
            cv2.circle(pixels, point, thick + 1, color, -1, cv2.LINE_AA)


def _whole(point: tuple[float, float]) -> tuple[int, int]:
    return round(point[0]), round(point[1])


def _write(pixels: Pixels, text: str, color: Color, unit: float) -> None:
    width = pixels.shape[1]
    scale = 0.6 * unit
    thickness = max(1, round(1.5 * unit))
    (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, thickness)
    scale *= min(1.0, 0.96 * width / max(1, text_width))
    band = text_height + 2 * below
    pixels[:band] = pixels[:band] // 3
    cv2.putText(
        pixels, text, (round(0.02 * width), text_height + below // 2), FONT, scale, color, thickness, cv2.LINE_AA
    )
