"""A camera that hangs wrong is told of once, and no other is."""

from collections.abc import Sequence

import pytest
from posture_analyzer.hanging import LOOKED_AT, MOST, Hanging

TURNED = [93.0, 88.2, 123.0, 92.1]
UPSIDE_DOWN = [177.3, 156.0, 116.5, 177.1]
WORKING = [1.2, 8.0, 21.7, 35.0]


def said(angles: Sequence[float | None]) -> list[int]:
    """Return at which pictures something was said."""
    hanging = Hanging()
    return [number for number, angle in enumerate(angles, start=1) if hanging.add("pi1", angle)]


@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        (TURNED * 50, [LOOKED_AT]),
        (UPSIDE_DOWN * 50, [LOOKED_AT]),
        (WORKING * 50, []),
        ([59.9] * 200, []),
        ([60.1] * 200, [LOOKED_AT]),
        (TURNED * 5, [LOOKED_AT]),
        ((TURNED * 5)[:-1], []),
        ([None] * 200, []),
        ([None, 90.0] * 100, [2 * LOOKED_AT]),
        ([90.0, 90.0, 90.0, 5.0] * 50, [LOOKED_AT]),
        ([90.0, 5.0] * 100, []),
        ([5.0] * 100 + [90.0] * 100, [100 + MOST]),
        ([90.0] * (MOST - 1) + [5.0] * 100, []),
        ([90.0] * 200 + [5.0] * 200 + [90.0] * 200, [LOOKED_AT]),
    ],
    ids=[
        "turned by a quarter",
        "upside down",
        "people at work",
        "just below",
        "just above",
        "just enough pictures",
        "one picture too few",
        "nobody measured",
        "every second measured",
        "three of four",
        "half",
        "turned later",
        "somebody lay for a while",
        "once only",
    ],
)
def test_a_camera_that_hangs_wrong_is_told_of_once(angles: Sequence[float | None], expected: list[int]) -> None:
    assert said(angles) == expected


def test_each_pi_has_its_own_count() -> None:
    hanging = Hanging()
    messages = [
        message
        for _ in range(3 * LOOKED_AT)
        for pi_id, angle in (("hung", 177.0), ("right", 3.0), ("lying", 91.0))
        if (message := hanging.add(pi_id, angle))
    ]
    assert [message.partition(":")[0] for message in messages] == ["hung", "lying"]
    assert all("posture_camera_rotate" in message and "\n" not in message for message in messages)
