"""The pose models: inside the package, and from a bundle file."""

from collections import Counter
from collections.abc import Container
from pathlib import Path

import cv2
import numpy as np
import pytest
from posture_analyzer import analysis, estimator, picture
from posture_analyzer.analysis import Analyst
from posture_analyzer.angles import Look, look
from posture_analyzer.estimator import Estimator, FileEstimator, FullEstimator
from posture_analyzer.picture import Pixels, UndecodableError
from posture_analyzer.settings import AnalysisSettings
from posture_common.service import FailedError, LastingError

from tests.support.images import SAMPLES
from tests.unit.analyzer.bundle import write_bundle

CAMERA = (SAMPLES / "camera.jpg").read_bytes()
BLANK = np.zeros((512, 512, 3), np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "full.task"
    write_bundle(path)
    return path


def small(image: bytes) -> Pixels:
    return picture.resize(picture.read(image, max_pixels=10**6))


def angles(model: Estimator, image: bytes) -> Look:
    pixels = small(image)
    landmarks = model.landmarks(pixels)
    assert landmarks is not None
    assert landmarks.shape == (33, 3)
    assert ((landmarks[:, 2] >= 0) & (landmarks[:, 2] <= 1)).all()
    return look(landmarks, width=pixels.shape[1], height=pixels.shape[0])


def test_a_bundle_from_a_file_finds_what_the_included_model_finds(bundle: Path) -> None:
    included, from_file = FullEstimator(), FileEstimator(bundle)
    try:
        one, other = angles(included, CAMERA), angles(from_file, CAMERA)
        assert other.neck == pytest.approx(one.neck, abs=1.5)
        assert other.body == pytest.approx(one.body, abs=1.5)
        assert included.landmarks(BLANK) is None
        assert from_file.landmarks(BLANK) is None
    finally:
        included.close()
        from_file.close()


def test_left_and_right_are_pixels_of_the_picture() -> None:
    pixels = small(CAMERA)
    wide = cv2.copyMakeBorder(pixels, 0, 0, 0, 256, cv2.BORDER_REPLICATE)
    model = FullEstimator()
    try:
        landmarks = model.landmarks(wide.astype(np.uint8))
    finally:
        model.close()
    assert landmarks is not None
    assert landmarks[7] == pytest.approx((210, 140, 1), abs=40)


def test_the_models_see_red_as_red(bundle: Path) -> None:
    pixels = small((SAMPLES / "astronaut.jpg").read_bytes())
    included, from_file = FullEstimator(), FileEstimator(bundle)
    try:
        # The package's own functions take red first.
        found = included._pose.process(pixels[:, :, ::-1].copy()).pose_landmarks.landmark
        expected = [(each.x * pixels.shape[1], each.y * pixels.shape[0]) for each in found]
        one, other = included.landmarks(pixels), from_file.landmarks(pixels)
    finally:
        included.close()
        from_file.close()
    assert one is not None
    assert other is not None
    assert one[:, :2] == pytest.approx(np.array(expected), abs=0.01)
    assert other[:, 2] == pytest.approx(one[:, 2], abs=0.02)


@pytest.mark.parametrize("content", [None, b"", b"no model", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_model_is_named_with_its_setting(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "wrong.task"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        LastingError, match=r"cannot use .*wrong\.task as pose model: .+; POSTURE_MODEL_FILE must"
    ) as error:
        FileEstimator(path)
    assert "\n" not in str(error.value)


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(LastingError, match="POSTURE_MODEL_FILE"):
        FileEstimator(tmp_path)


def test_the_setting_chooses_the_model(bundle: Path) -> None:
    settings = AnalysisSettings(model="lite", model_file=bundle, passes=1)
    with Analyst(settings) as analyst:
        found = analyst.analyse(CAMERA)
    assert found.posture.posture_status == "Bad"
    assert found.posture.uncertainty is None


class Stumbling:
    """Counts itself, and fails at the pictures with these numbers."""

    def __init__(self, counts: Counter[str], fails_at: Container[int]) -> None:
        self._counts = counts
        self._fails_at = fails_at
        self._seen = 0
        counts["made"] += 1

    def landmarks(self, _pixels: Pixels) -> None:
        self._seen += 1
        if self._seen in self._fails_at:
            raise RuntimeError("Graph has errors:\nCalculator::Process() failed")

    def close(self) -> None:
        self._counts["closed"] += 1
        if self._seen in self._fails_at:
            raise RuntimeError("Graph has errors:\nCalculator::Process() failed")


def test_a_model_that_stumbles_is_closed_and_replaced_and_the_image_looked_at_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts: Counter[str] = Counter()
    makes = iter([{2}, ()])
    monkeypatch.setattr(estimator, "create", lambda _file: Stumbling(counts, next(makes)))
    with Analyst(AnalysisSettings(passes=1)) as analyst:
        assert analyst.analyse(CAMERA).problem is None
        assert counts == {"made": 1}
        assert analyst.analyse(CAMERA).posture.posture_status == "No person detected"
        assert counts == {"made": 2, "closed": 1}
    assert counts == {"made": 2, "closed": 2}


def test_a_model_that_fails_anew_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    makes = iter([{1}, {1}])
    monkeypatch.setattr(estimator, "create", lambda _file: Stumbling(counts, next(makes)))
    analyst = Analyst(AnalysisSettings(passes=1))
    with pytest.raises(FailedError, match=r"the pose model fails, loaded anew too: Graph has errors:; .* elsewhere"):
        analyst.analyse(CAMERA)
    assert counts == {"made": 2, "closed": 1}
    analyst.close()
    assert counts == {"made": 2, "closed": 2}


@pytest.mark.parametrize("size", [(1, 65_501), (65_501, 1)])
def test_a_picture_too_long_for_a_jpeg_is_undecodable(size: tuple[int, int]) -> None:
    image = cv2.imencode(".png", np.zeros((*size, 3), np.uint8))[1].tobytes()
    with Analyst(AnalysisSettings()) as analyst:
        found = analyst.analyse(image)
    assert found.posture.posture_status == "Undecodable image"
    assert "65500" in (found.problem or "")


def test_undecodable_images_say_why() -> None:
    found = analysis.undecodable("because")
    assert (found.posture.posture_status, found.problem, found.annotated) == ("Undecodable image", "because", None)


def test_the_annotated_picture_has_the_pictures_own_size() -> None:
    with Analyst(AnalysisSettings()) as analyst:
        for height, width in ((300, 200), (1080, 1920), (1, 1), (2000, 1)):
            image = picture.to_jpeg(np.full((height, width, 3), 99, np.uint8), quality=80)
            found = analyst.analyse(image)
            assert found.annotated is not None
            assert picture.read(found.annotated, max_pixels=10**7).shape == (height, width, 3)
            assert found.posture.posture_status == "No person detected"
        truncated = analyst.analyse(CAMERA[:5000])
        assert truncated.problem
        assert truncated.annotated is None
        with pytest.raises(UndecodableError):
            picture.read(CAMERA[:5000], max_pixels=10**6)
