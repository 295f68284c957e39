"""Angles of people drawn with known angles, and the verdict on them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from posture_analyzer.angles import EARS, HIPS, SHOULDERS, Landmarks, Look, Posture, judge, look

SIDE = 2000
TORSO, NECK = 300, 100
SIDEWAYS = np.array([20, 0])

whole_turn = st.floats(-179, 179)
leaning = st.floats(-80, 80)


def person(*, neck: float = 0, body: float = 0, hip: tuple[float, float] = (SIDE / 2, SIDE / 2)) -> Landmarks:
    """A person of known angles, 40 pixels wide, wholly visible."""
    landmarks = np.full((33, 3), (SIDE / 2, SIDE / 2, 1.0))
    middle = np.array(hip)
    for pair, length, angle in ((HIPS, 0, 0.0), (SHOULDERS, TORSO, body), (EARS, NECK, neck)):
        middle = middle + length * np.array([math.sin(math.radians(angle)), -math.cos(math.radians(angle))])
        landmarks[pair[0], :2] = middle - SIDEWAYS
        landmarks[pair[1], :2] = middle + SIDEWAYS
    return landmarks


def angles(landmarks: Landmarks, *, side: float = SIDE) -> Look:
    return look(landmarks, width=round(side), height=round(side))


def same_angle(one: float | None, other: float | None, *, within: float = 1e-6) -> bool:
    assert one is not None
    assert other is not None
    return abs(math.remainder(one - other, 360)) <= within


def verdict(*looks: Look | None) -> Posture:
    return judge(looks, neck_threshold=40, body_threshold=10)


@pytest.mark.parametrize(
    ("neck", "body"), [(0, 0), (30, 0), (-30, 0), (0, 45), (0, -45), (40, 10), (-67.5, -31), (90, 90), (135, -135)]
)
def test_known_angles_are_measured(neck: float, body: float) -> None:
    measured = angles(person(neck=neck, body=body))
    assert measured.neck == pytest.approx(neck, abs=1e-9)
    assert measured.body == pytest.approx(body, abs=1e-9)


def test_upside_down_is_half_a_turn() -> None:
    assert abs(angles(person(body=180)).body or 0) == pytest.approx(180)


@given(neck=whole_turn, body=leaning)
def test_a_mirrored_person_leans_as_much_to_the_other_side(neck: float, body: float) -> None:
    mirrored = person(neck=neck, body=body)
    mirrored[:, 0] = SIDE - mirrored[:, 0]
    measured = angles(mirrored)
    assert same_angle(measured.neck, -neck)
    assert same_angle(measured.body, -body)


@given(neck=leaning, body=leaning)
def test_swapped_left_and_right_change_nothing(neck: float, body: float) -> None:
    swapped = person(neck=neck, body=body)
    for one, other in (EARS, SHOULDERS, HIPS):
        swapped[[one, other]] = swapped[[other, one]]
    assert angles(swapped) == angles(person(neck=neck, body=body))


@given(neck=leaning, body=leaning, scale=st.floats(0.05, 20))
def test_scale_changes_nothing(neck: float, body: float, scale: float) -> None:
    measured = angles(person(neck=neck, body=body) * (scale, scale, 1), side=SIDE * scale)
    assert same_angle(measured.neck, neck)
    assert same_angle(measured.body, body)


@given(neck=leaning, body=leaning, across=st.floats(-400, 400), down=st.floats(-400, 400))
def test_shift_changes_nothing(neck: float, body: float, across: float, down: float) -> None:
    measured = angles(person(neck=neck, body=body) + np.array([across, down, 0]))
    assert same_angle(measured.neck, neck)
    assert same_angle(measured.body, body)


@given(neck=whole_turn, body=whole_turn, turn=st.floats(-180, 180))
def test_rotation_adds_to_the_signed_angles(neck: float, body: float, turn: float) -> None:
    cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    rotated = person(neck=neck, body=body)
    # Clockwise as one sees it, for y points down.
    rotated[:, :2] = (rotated[:, :2] - SIDE / 2) @ np.array([[cosine, sine], [-sine, cosine]]) + SIDE / 2
    measured = angles(rotated)
    assert same_angle(measured.neck, neck + turn)
    assert same_angle(measured.body, body + turn)


@pytest.mark.parametrize(
    ("pair", "neck", "body"), [(EARS, False, True), (SHOULDERS, False, False), (HIPS, True, False)]
)
@pytest.mark.parametrize("fault", ["left", "right", "above", "below", "invisible"])
def test_a_midpoint_that_cannot_be_seen_takes_its_angles_only(
    pair: tuple[int, int], neck: bool, body: bool, fault: str
) -> None:
    landmarks = person(neck=10, body=5)
    column, value = {"left": (0, -1), "right": (0, SIDE), "above": (1, -1), "below": (1, SIDE), "invisible": (2, 0.49)}[
        fault
    ]
    landmarks[list(pair), column] = value
    measured = angles(landmarks)
    assert (measured.neck is not None, measured.body is not None) == (neck, body)


def test_one_hidden_side_is_enough_to_be_seen_by_the_other() -> None:
    landmarks = person()
    landmarks[11, 2] = 0.0
    assert angles(landmarks) == Look(neck=0, body=0)


def test_the_frame_reaches_from_its_first_pixel_to_before_its_size() -> None:
    landmarks = person()
    landmarks[list(EARS), 0] = 0
    assert angles(landmarks).neck is not None
    landmarks[list(HIPS), 1] = SIDE
    assert angles(landmarks).body is None


@pytest.mark.parametrize(
    ("neck", "body", "status", "confidence"),
    [
        (0, 0, "Good", "sure"),
        (36.9, 6.9, "Good", "sure"),
        (37, 0, "Good", "borderline"),
        (0, 7, "Good", "borderline"),
        (39.99, 9.99, "Good", "borderline"),
        (40, 0, "Bad", "borderline"),
        (0, 10, "Bad", "borderline"),
        (43, 0, "Bad", "borderline"),
        (43.1, 13.1, "Bad", "sure"),
        (43.1, 0, "Bad", "sure"),
        (-43.1, 0, "Bad", "sure"),
        (0, -13.1, "Bad", "sure"),
        (None, 0, "Landmarks not visible", "sure"),
        (None, 9, "Landmarks not visible", "sure"),
        (41, None, "Landmarks not visible", "sure"),
        (60, None, "Landmarks not visible", "sure"),
        (None, None, "Landmarks not visible", "sure"),
    ],
)
@pytest.mark.parametrize("passes", [1, 2])
def test_the_verdict(passes: int, neck: float | None, body: float | None, status: str, confidence: str) -> None:
    posture = verdict(*[Look(neck, body)] * passes)
    assert (posture.posture_status, posture.confidence) == (status, confidence)
    assert posture.neck_angle == (None if neck is None else abs(neck))
    assert posture.body_angle == (None if body is None else abs(body))
    assert posture.landmarks_detected
    measured = neck is not None or body is not None
    assert posture.uncertainty == (0 if passes == 2 and measured else None)


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        # The mean of the signed angles, half of the larger difference.
        ((Look(20, 2), Look(24, 4)), Posture("Good", 22, 3, 2, "sure", True)),
        ((Look(3, 0), Look(-3, 0)), Posture("Good", 0, 0, 3, "sure", True)),
        ((Look(20, 0), Look(26, 0)), Posture("Good", 23, 0, 3, "sure", True)),
        ((Look(20, 0), Look(26.1, 0)), Posture("Good", 23.05, 0, 3.05, "uncertain", True)),
        ((Look(20, -3.1), Look(20, 3.1)), Posture("Good", 20, 0, 3.1, "uncertain", True)),
        # uncertain says more than borderline
        ((Look(34, 0), Look(44, 0)), Posture("Good", 39, 0, 5, "uncertain", True)),
        # the looks' own spread decides the status, or does not
        ((Look(39, 0), Look(42, 0)), Posture("Bad", 40.5, 0, 1.5, "uncertain", True)),
        ((Look(38, 0), Look(41, 0)), Posture("Good", 39.5, 0, 1.5, "uncertain", True)),
        ((Look(41, 0), Look(42, 0)), Posture("Bad", 41.5, 0, 0.5, "borderline", True)),
        ((Look(60, 9), Look(60, 12)), Posture("Bad", 60, 10.5, 1.5, "borderline", True)),
        # on the circle
        ((Look(179, 0), Look(-179, 0)), Posture("Bad", 180, 0, 1, "sure", True)),
        ((Look(-178, 0), Look(179, 0)), Posture("Bad", 179.5, 0, 1.5, "sure", True)),
        # one pass found nobody
        ((Look(20, 2), None), Posture("Good", 20, 2, None, "uncertain", True)),
        ((None, Look(60, 2)), Posture("Bad", 60, 2, None, "uncertain", True)),
        ((None, None), Posture("No person detected", confidence="sure")),
        ((None,), Posture("No person detected", confidence="sure")),
        # what only one of two passes could measure is not given, and that it is hidden is not certain
        ((Look(20, 2), Look(20, None)), Posture("Landmarks not visible", 20, None, 0, "uncertain", True)),
        ((Look(None, 2), Look(20, None)), Posture("Landmarks not visible", None, None, None, "uncertain", True)),
        # a midpoint that is nearly visible decides about the status only where another is hidden
        (
            (Look(20, None, near=True), Look(20, None)),
            Posture("Landmarks not visible", 20, None, 0, "borderline", True),
        ),
        ((Look(20, 2, near=True), Look(20, 2)), Posture("Good", 20, 2, 0, "sure", True)),
    ],
)
def test_the_verdict_on_two_passes(looks: tuple[Look | None, ...], expected: Posture) -> None:
    posture = verdict(*looks)
    assert posture.posture_status == expected.posture_status
    assert posture.neck_angle == pytest.approx(expected.neck_angle)
    assert posture.body_angle == pytest.approx(expected.body_angle)
    assert posture.uncertainty == pytest.approx(expected.uncertainty)
    assert posture.confidence == expected.confidence
    assert posture.landmarks_detected is expected.landmarks_detected


def test_nobody_is_sure_only_where_nobody_can_be_missed() -> None:
    posture = judge([None, None], neck_threshold=40, body_threshold=10, may_miss=True)
    assert (posture.posture_status, posture.confidence) == ("No person detected", "uncertain")


@pytest.mark.parametrize(
    ("column", "value", "near"),
    [
        (0, 0.021, False), (0, 0.019, True), (0, -0.019, True), (0, -0.021, False),
        (0, 0.979, False), (0, 0.981, True), (0, 1.019, True), (0, 1.021, False),
        (1, 0.5, False), (1, 0.981, True), (1, 1.1, False),
        (2, 0.39, False), (2, 0.41, True), (2, 0.59, True), (2, 0.61, False),
    ],
)  # fmt: skip
def test_a_midpoint_near_the_limit_is_told(column: int, value: float, near: bool) -> None:
    landmarks = person()
    landmarks[list(HIPS), column] = value if column == 2 else value * SIDE
    assert angles(landmarks).near is near


def test_a_midpoint_that_one_more_thing_hides_is_not_near() -> None:
    landmarks = person()
    landmarks[list(HIPS), 1:] = [1.01 * SIDE, 0.3]
    assert not angles(landmarks).near


def test_the_thresholds_are_those_given() -> None:
    assert judge([Look(50, 15)], neck_threshold=60, body_threshold=20).posture_status == "Good"
    assert judge([Look(50, 15)], neck_threshold=60, body_threshold=15).posture_status == "Bad"


@given(one=whole_turn, difference=st.floats(-90, 90))
def test_the_order_of_the_passes_does_not_matter(one: float, difference: float) -> None:
    looks = Look(one, 0), Look(math.remainder(one + difference, 360), 0)
    there, back = verdict(*looks), verdict(*reversed(looks))
    assert there.neck_angle == pytest.approx(back.neck_angle)
    assert there.uncertainty == pytest.approx(back.uncertainty)
    assert there.uncertainty == pytest.approx(abs(difference) / 2)
    assert 0 <= (there.neck_angle or 0) <= 180
