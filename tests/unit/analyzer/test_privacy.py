"""What is kept of a picture of a person: nothing of them in a skeleton, no detail of a blurred head, or nothing."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from posture_analyzer import picture, privacy
from posture_analyzer.analysis import Analyst
from posture_analyzer.angles import Confidence, Landmarks, Posture
from posture_analyzer.annotate import annotate
from posture_analyzer.sandbox import Sandbox
from posture_analyzer.settings import AnalysisSettings

from tests.support.images import nobody, photograph

WIDTH, HEIGHT = 640, 480
GOOD = Posture("Good", 30.0, 5.0, 1.0, "sure", True)


def person(x: float, y: float, *, size: float, visibility: float = 1.0) -> Landmarks:
    """Return somebody seen from the side, whose head's landmarks are around (x, y) and `size` pixels apart."""
    landmarks = np.full((33, 3), (x, y + 6 * size, visibility))
    landmarks[privacy.HEAD] = [(x + size * (n % 3 - 1) / 2, y + size * (n % 2 - 0.5), visibility) for n in range(11)]
    landmarks[[11, 12], :2] = x, y + 2 * size
    return landmarks


def noise(seed: int = 1) -> picture.Pixels:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def detail(pixels: picture.Pixels) -> float:
    """Return the energy of what changes from one pixel to the next."""
    return float(cv2.Laplacian(pixels.astype(np.float32), cv2.CV_32F).var())


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    box = Sandbox(max_pixels=10**6, jpeg_quality=90)
    yield box
    box.close()


def analysed(image: bytes, **settings: object) -> tuple[picture.Pixels | None, str | None]:
    with Analyst(AnalysisSettings.model_validate(settings)) as analyst:
        analysis = analyst.analyse(image)
    withheld = analysis.withheld.reason if analysis.withheld else None
    if analysis.annotated is None:
        return None, withheld
    return picture.read(analysis.annotated, max_pixels=10**7), withheld


def test_a_skeleton_is_the_same_whatever_the_picture_showed(box: Sandbox) -> None:
    drawn = []
    for seed in (1, 2):
        box.open(picture.to_jpeg(noise(seed), quality=95))
        drawn.append(box.annotate([person(300, 100, size=20)], GOOD, backdrop="grey"))
    assert drawn[0] == drawn[1]


def test_a_skeleton_of_a_person_has_no_pixel_of_the_picture() -> None:
    pixels, _ = analysed(photograph("camera"), pictures="skeleton")
    assert pixels is not None
    grey = np.abs(pixels[60:].astype(int) - privacy.GREY).max(axis=2) < 12
    assert grey.mean() > 0.9  # what is not is the drawing and the JPEG's ringing around it
    seen = picture.read(photograph("camera"), max_pixels=10**7)
    assert abs(np.corrcoef(pixels[60:][grey].ravel(), seen[60:][grey].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("size", [4, 10, 40, 120])
@pytest.mark.parametrize(("x", "y"), [(320, 150), (1, 1), (639, 240), (0, 479), (320, 2)])
def test_a_blurred_head_has_no_detail_at_any_size_and_place(x: float, y: float, size: float) -> None:
    pixels, landmarks = noise(), person(x, y, size=size)
    before = pixels.copy()
    privacy.blur(pixels, [landmarks])
    radius = round(1.2 * size)
    box = np.s_[max(0, round(y) - radius) : round(y) + radius, max(0, round(x) - radius) : round(x) + radius]
    assert detail(pixels[box]) < 0.01 * detail(before[box])
    # The mean colours stay, and what is far away as it was.
    assert (pixels == before).all(axis=2).mean() > (0.1 if size == 120 else 0.8)


def test_both_looks_heads_are_blurred() -> None:
    pixels = noise()
    privacy.blur(pixels, [person(100, 100, size=20), person(500, 300, size=20)])
    before = detail(noise())
    assert detail(pixels[80:120, 80:120]) < 0.01 * before
    assert detail(pixels[280:320, 480:520]) < 0.01 * before


def noise_blurred() -> picture.Pixels:
    pixels = noise()
    privacy.blur(pixels, [person(300, 200, size=20)])
    return pixels


def test_the_skeleton_is_drawn_over_the_blurred_head(box: Sandbox) -> None:
    pixels = noise()
    annotate(pixels, [person(300, 200, size=20)], GOOD, backdrop="blurred")
    assert (pixels[180:220, 280:320] > 200).all(axis=2).any()
    assert not (noise_blurred()[180:220, 280:320] > 200).any()


@pytest.mark.parametrize("name", ["camera", "camera-mirrored", "astronaut"])
def test_the_face_of_a_photograph_is_blurred(name: str) -> None:
    shown, _ = analysed(photograph(name))
    blurred, withheld = analysed(photograph(name), blur_faces=True)
    assert shown is not None
    assert blurred is not None
    assert withheld is None
    cascades = Path(cv2.__file__).parent / "data"
    finder = cv2.CascadeClassifier(str(cascades / "haarcascade_frontalface_default.xml"))
    difference = np.abs(shown.astype(int) - blurred.astype(int)).max(axis=2) > 8
    assert 0.01 < difference.mean() < 0.5
    assert not len(finder.detectMultiScale(blurred, minSize=(40, 40)))


def test_where_no_head_is_surely_found_no_picture_is_kept() -> None:
    assert analysed(nobody(), blur_faces=True) == (None, "no_head")
    size = WIDTH, HEIGHT

    def kept(*looks: Landmarks) -> object:
        return privacy.backdrop(looks, GOOD, pictures="all", blur_faces=True, size=size)

    assert kept(person(300, 200, size=20)) == "blurred"
    for unsure in (person(300, 200, size=20, visibility=0.4), person(300, -20, size=20), person(700, 200, size=20)):
        assert isinstance(kept(unsure), privacy.Withheld)
        assert isinstance(kept(person(300, 200, size=20), unsure), privacy.Withheld)


@pytest.mark.parametrize("confidence", ["sure", "borderline", "uncertain", None])
def test_uncertain_keeps_those_that_a_person_should_look_at(confidence: Confidence | None) -> None:
    posture = Posture("Good", 30.0, 5.0, 1.0, confidence, True)
    kept = privacy.backdrop([], posture, pictures="uncertain", blur_faces=False, size=(WIDTH, HEIGHT))
    assert (kept == "picture") == (confidence == "uncertain")


def test_with_none_no_picture_is_kept_and_the_posture_is_the_same() -> None:
    with Analyst(AnalysisSettings()) as one, Analyst(AnalysisSettings(pictures="none")) as other:
        shown, withheld = one.analyse(photograph("camera")), other.analyse(photograph("camera"))
    assert shown.annotated is not None
    assert withheld.annotated is None
    assert withheld.withheld == privacy.Withheld("setting", "no picture is kept: POSTURE_PICTURES is none")
    assert withheld.posture == shown.posture
