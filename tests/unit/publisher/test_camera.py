import importlib
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from posture_common.service import LastingError
from posture_publisher import camera as camera_module
from posture_publisher.camera import CameraError, PiCamera, V4l2Camera
from posture_publisher.clock import Clock


class Capture:
    """cv2.VideoCapture's part: a machine that runs tests has no camera. Each frame is as grey as its number."""

    def __init__(self, device: str, _api: int) -> None:
        self.frame = 0
        self.released = False
        self.opens = not device.endswith("busy")
        captures.append(self)

    def isOpened(self) -> bool:  # noqa: N802  (OpenCV names it)
        return self.opens

    def set(self, _name: int, _value: float) -> bool:
        return True

    def grab(self) -> bool:
        self.frame += 1
        return True

    def read(self) -> tuple[bool, Any]:
        self.frame += 1
        if self.frame > 6:
            return False, None
        return True, np.full((48, 64, 3), 40 * self.frame, np.uint8)

    def release(self) -> None:
        self.released = True


captures: list[Capture] = []


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    captures.clear()
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    path = tmp_path / "video0"
    path.touch()
    return path


def test_v4l2_gives_fresh_frames_as_jpeg(device: Path) -> None:
    with V4l2Camera("pi1", device) as camera:
        pictures = [camera.take() for _ in range(3)]
        with pytest.raises(CameraError, match=str(device)):
            camera.take()
    greys = []
    for picture in pictures:
        assert picture is not None
        frame = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert frame is not None
        assert frame.shape == (48, 64)
        greys.append(round(float(frame.mean())))
    assert greys == pytest.approx([80, 160, 240], abs=2)  # the frame that waited in the driver is passed over
    assert captures[0].released


def test_pictures_are_named_by_pi_and_time_and_each_has_its_own_id(device: Path) -> None:
    with V4l2Camera("pi1", device) as camera:
        first, second = camera.take(), camera.take()
    assert first is not None
    assert second is not None
    assert uuid.UUID(first.image_id) != uuid.UUID(second.image_id)
    assert first.filename == f"pi1-{first.captured_at:%Y%m%dT%H%M%S}.{first.captured_at.microsecond // 1000:03d}Z.jpg"
    assert first.captured_at.tzinfo is not None


def test_v4l2_says_why_it_does_not_open_and_may_try_again(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = V4l2Camera("pi1", device)
    device.unlink()
    with pytest.raises(CameraError, match="not there"):
        camera.__enter__()
    device.touch()
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)
        with pytest.raises(CameraError, match="group video"):
            camera.__enter__()
    with camera:
        assert camera.take() is not None
    busy = device.with_name("busy")
    busy.touch()
    with pytest.raises(CameraError, match="another program"):
        V4l2Camera("pi1", busy).__enter__()
    assert captures[-1].released


class Picamera2:
    """picamera2's part, which exists on a Pi only."""

    fails_at = ""

    def __init__(self) -> None:
        self.options: dict[str, int] = {}
        self.closed = False
        made.append(self)
        self._step("open")

    def __enter__(self) -> "Picamera2":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def create_video_configuration(self, **_: object) -> dict[str, object]:
        return {}

    def configure(self, _configuration: object) -> None:
        self._step("configure")

    def start(self) -> None:
        self._step("start")

    def capture_file(self, file: Any, **_: object) -> None:
        self._step("capture")
        file.write(b"a jpeg")

    def _step(self, name: str) -> None:
        if name == self.fails_at:
            raise TimeoutError


made: list[Picamera2] = []


@pytest.fixture
def on_a_pi(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    made.clear()
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=Picamera2))
    monkeypatch.setattr(camera_module, "WARM_UP_S", 0.0)
    return lambda step: monkeypatch.setattr(Picamera2, "fails_at", step)


def test_a_pis_camera_gives_pictures(on_a_pi: Callable[[str], None]) -> None:
    with PiCamera("pi1") as camera:
        picture = camera.take()
        on_a_pi("capture")
        with pytest.raises(CameraError, match=r"TimeoutError.*cable"):
            camera.take()
    assert picture is not None
    assert picture.data == b"a jpeg"
    assert made[0].closed


@pytest.mark.parametrize("step", ["open", "configure", "start"])
def test_a_pis_camera_says_why_it_does_not_open(on_a_pi: Callable[[str], None], step: str) -> None:
    on_a_pi(step)
    with pytest.raises(CameraError, match=r"TimeoutError.*rpicam-hello"):
        PiCamera("pi1").__enter__()
    assert made[0].closed or step == "open"


@pytest.mark.parametrize(
    ("module", "camera", "remedy"),
    [
        ("picamera2", PiCamera("pi1"), "apt install python3-picamera2"),
        ("cv2", V4l2Camera("pi1", Path("/dev/video0")), "requirements/publisher-v4l2.txt"),
    ],
)
def test_a_missing_module_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, module: str, camera: PiCamera | V4l2Camera, remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LastingError, match=rf"{module}.*{remedy}"):
        camera.__enter__()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("numpy.dtype size changed, may indicate binary incompatibility.\nExpected 96, got 88"),
        RuntimeError("libcamera has no camera manager"),
        OSError("libcamera.so.0.5: cannot open shared object file"),
        AttributeError("partially initialized module"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_module_that_fails_while_it_is_imported_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(_name: str) -> None:
        sys.stderr.write("A module that was compiled using NumPy 1.x cannot be run in NumPy 2\n" * 20)
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(LastingError) as raised:
        PiCamera("pi1").__enter__()
    line = str(raised.value)
    assert line.startswith(f"Python module picamera2 cannot be imported ({type(error).__name__}: {str(error)[:20]}")
    assert "requirements/publisher.txt" in line
    assert "\n" not in line
    assert capfd.readouterr().err == ""


def test_a_picture_says_when_its_time_cannot_be_believed(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doubts = iter([None, "nothing has set it", None])
    monkeypatch.setattr(Clock, "_look", lambda _clock, _now: next(doubts))
    with V4l2Camera("pi1", device) as camera:
        pictures = [camera.take() for _ in range(3)]
    assert [picture and picture.clock for picture in pictures] == [None, "unsynchronised", None]
