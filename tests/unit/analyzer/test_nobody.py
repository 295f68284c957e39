"""That nobody is there is said to be sure only where it is."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from posture_analyzer import picture
from posture_analyzer.analysis import Analyst
from posture_analyzer.settings import AnalysisSettings

from tests.support.images import SAMPLES

PEOPLE = ("camera", "camera-mirrored", "camera-upright", "astronaut")


@pytest.fixture(scope="module")
def analyst() -> Iterator[Analyst]:
    with Analyst(AnalysisSettings()) as analyst:
        yield analyst


def sample(name: str) -> picture.Pixels:
    pixels = cv2.imread(str(SAMPLES / f"{name}.jpg"))
    assert pixels is not None
    return pixels.astype(np.uint8)


def encoded(pixels: picture.Pixels) -> bytes:
    return picture.to_jpeg(np.ascontiguousarray(pixels), quality=90)


@pytest.mark.parametrize("wide", [1.2, 4 / 3, 1.5, 16 / 9, 2.0])
@pytest.mark.parametrize("name", PEOPLE)
def test_a_person_made_wide_is_never_surely_nobody(analyst: Analyst, name: str, wide: float) -> None:
    pixels = sample(name)
    stretched = cv2.resize(pixels, (round(wide * pixels.shape[1]), pixels.shape[0]), interpolation=cv2.INTER_AREA)
    posture = analyst.analyse(encoded(stretched.astype(np.uint8))).posture
    assert posture.posture_status != "No person detected" or posture.confidence == "uncertain"


@pytest.mark.parametrize("name", PEOPLE)
def test_a_person_in_the_dark_is_never_surely_nobody(analyst: Analyst, name: str) -> None:
    posture = analyst.analyse(encoded((sample(name) * 0.06).astype(np.uint8))).posture
    assert posture.posture_status != "No person detected" or posture.confidence == "uncertain"


def test_an_empty_place_is_surely_empty(analyst: Analyst) -> None:
    posture = analyst.analyse((SAMPLES / "camera-nobody.jpg").read_bytes()).posture
    assert (posture.posture_status, posture.confidence) == ("No person detected", "sure")
