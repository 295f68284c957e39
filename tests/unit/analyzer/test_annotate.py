"""Drawing on pictures of every size, whatever the landmarks."""

import numpy as np
import pytest
from posture_analyzer.angles import Posture
from posture_analyzer.annotate import annotate, caption

GOOD = Posture("Good", 30.4, 5.5, 1.25, "sure", True)
FAR = (1e9, -1e9, 1.0)


@pytest.mark.parametrize(
    ("posture", "text"),
    [
        (GOOD, "Good  neck 30  body 6  +-1.2 deg"),
        (Posture("Bad", 41.0, 5.0, None, "borderline", True), "Bad  neck 41  body 5  borderline"),
        (Posture("Landmarks not visible", 41.0, None, 0.0, "uncertain", True),
         "Landmarks not visible  neck 41  +-0.0 deg  uncertain"),
        (Posture("No person detected", confidence="sure"), "No person detected"),
    ],
)  # fmt: skip
def test_the_caption(posture: Posture, text: str) -> None:
    assert caption(posture) == text
    assert caption(posture).isascii()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 2), (3, 700), (480, 640)])
@pytest.mark.parametrize("point", [None, FAR, (-1e12, 1e12, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)])
def test_every_size_can_be_drawn_on(size: tuple[int, int], point: tuple[float, float, float] | None) -> None:
    pixels = np.full((*size, 3), 50, np.uint8)
    annotate(pixels, [] if point is None else [np.full((33, 3), point)], GOOD)
    assert pixels.shape == (*size, 3)
    assert (pixels != 50).any()


def test_the_measured_lines_are_drawn_where_they_were_measured() -> None:
    pixels = np.zeros((640, 640, 3), np.uint8)
    landmarks = np.full((33, 3), FAR)
    for pair, y in ((7, 200), (11, 300), (23, 500)):
        landmarks[[pair, pair + 1]] = [(310, y, 1), (330, y, 1)]
    annotate(pixels, [landmarks], GOOD)
    green = (pixels[:, :, 1].astype(int) - pixels[:, :, 2]) > 60
    assert green[210:490, 318:323].any(axis=1).all()
    assert not green[550:].any()
    assert not green[210:490, :300].any()
