"""The same picture, changed in ways that change nobody's posture, keeps its angles and its verdict."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from posture_analyzer import picture
from posture_analyzer.analysis import Analyst
from posture_analyzer.angles import Posture
from posture_analyzer.picture import Pixels
from posture_analyzer.settings import AnalysisSettings

from tests.support.images import SAMPLES

NAMES = ("camera", "camera-upright", "astronaut")
NECK_DEGREES, BODY_DEGREES = 3.0, 2.5
SCALES = (0.5, 0.65, 0.75, 0.9, 1.1, 1.25, 1.5, 1.75, 2.0)
BRIGHTNESSES = (0.5, 0.8, 1.2, 1.5)
QUALITIES = (50, 60, 70, 85, 95)
SHIFTS = ((0.02, 0.0), (-0.04, 0.0), (0.0, 0.02), (0.0, -0.04))
BORDERS = (0.02, 0.05)


def harmless_changes(pixels: Pixels) -> Iterator[tuple[str, bytes]]:
    height, width = pixels.shape[:2]
    yield "mirrored", jpeg(cv2.flip(pixels, 1))
    for scale in SCALES:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        yield f"scaled {scale}", jpeg(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=how))
    for factor in BRIGHTNESSES:
        yield f"brightness {factor}", jpeg(np.clip(pixels * factor, 0, 255))
    for quality in QUALITIES:
        yield f"quality {quality}", jpeg(pixels, quality)
    for across, down in SHIFTS:
        move = np.array([[1, 0, round(across * width)], [0, 1, round(down * height)]], np.float32)
        moved = cv2.warpAffine(pixels, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
        yield f"shifted {across} {down}", jpeg(moved)
    for part in BORDERS:
        rows, columns = round(part * height), round(part * width)
        padded = cv2.copyMakeBorder(pixels, rows, rows, columns, columns, cv2.BORDER_REPLICATE)
        yield f"padded {part}", jpeg(padded)
        yield f"cropped {part}", jpeg(pixels[rows : height - rows, columns : width - columns])


def jpeg(pixels: object, quality: int = 95) -> bytes:
    return picture.to_jpeg(np.ascontiguousarray(pixels, np.uint8), quality=quality)


def deviations(pairs: list[tuple[Posture, Posture]], angle: str) -> list[float]:
    values = [(getattr(one, angle), getattr(other, angle)) for one, other in pairs]
    return [abs(one - other) for one, other in values if one is not None and other is not None]


@pytest.mark.timeout(120)
def test_harmless_changes_leave_angles_and_verdict() -> None:
    pairs: list[tuple[Posture, Posture]] = []
    report, looked_at = [], 0
    with Analyst(AnalysisSettings()) as analyst:
        for name in NAMES:
            image = (SAMPLES / f"{name}.jpg").read_bytes()
            original = analyst.analyse(image).posture
            assert original.confidence != "uncertain", name
            for change, changed in harmless_changes(picture.read(image, max_pixels=10**7)):
                posture = analyst.analyse(changed).posture
                looked_at += 1
                report.append(f"{name} {change}: {posture}, the original {original}")
                if posture.confidence != "uncertain":
                    pairs.append((original, posture))
    necks, bodies = deviations(pairs, "neck_angle"), deviations(pairs, "body_angle")
    flips = sum({one.posture_status, other.posture_status} == {"Good", "Bad"} for one, other in pairs)
    everything = "\n".join(report)
    assert len(pairs) >= 0.8 * looked_at, everything
    assert np.mean(np.array(necks) <= NECK_DEGREES) >= 0.95, everything
    assert np.mean(np.array(bodies) <= BODY_DEGREES) >= 0.95, everything
    assert flips < 0.02 * len(pairs), everything
