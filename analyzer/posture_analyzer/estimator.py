"""MediaPipe's pose models behind one method: a picture in, landmarks out.

An instance serves one thread. After an exception it must be closed and made anew: MediaPipe's graph stays broken.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import cv2
import numpy as np
from posture_common.service import LastingError

from .angles import Landmarks
from .picture import LONGEST_SIDE, Pixels
from .remarks import remarks


def _import_mediapipe() -> Any:
    """Import mediapipe without matplotlib, which takes 0.4 s and 40 MB for a drawing helper that nothing here calls."""
    stubs = {name: ModuleType(name) for name in ("matplotlib", "matplotlib.pyplot") if name not in sys.modules}
    sys.modules.update(stubs)
    try:
        import mediapipe
    finally:
        for name in stubs:
            del sys.modules[name]
    return mediapipe


mp = _import_mediapipe()


class Estimator(Protocol):
    """Finds one person's landmarks."""

    def landmarks(self, pixels: Pixels) -> Landmarks | None:
        """Return the landmarks of the most prominent person, or None where there is nobody."""

    def close(self) -> None:
        """Give the model's memory back."""


class FullEstimator:
    """The full model, which comes inside the mediapipe package."""

    def __init__(self) -> None:
        self._pose = mp.solutions.pose.Pose(static_image_mode=True, model_complexity=1)

    def landmarks(self, pixels: Pixels) -> Landmarks | None:
        """See `Estimator`."""
        with remarks.of_an_inference():
            found = self._pose.process(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).pose_landmarks
        return None if found is None else _in_pixels(found.landmark, pixels)

    def close(self) -> None:
        """See `Estimator`."""
        self._pose.close()


class FileEstimator:
    """A pose landmarker bundle (.task) from a file: lite, heavy, or one's own.

    Raises:
        LastingError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        tasks = mp.tasks
        try:
            model = path.read_bytes()
            options = tasks.vision.PoseLandmarkerOptions(
                base_options=tasks.BaseOptions(model_asset_buffer=model),
                running_mode=tasks.vision.RunningMode.IMAGE,
            )
            self._landmarker = tasks.vision.PoseLandmarker.create_from_options(options)
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise LastingError(
                f"cannot use {path} as pose model: {reason}; POSTURE_MODEL_FILE must name a pose landmarker .task file"
            ) from None

    def landmarks(self, pixels: Pixels) -> Landmarks | None:
        """See `Estimator`."""
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        with remarks.of_an_inference():
            found = self._landmarker.detect(image).pose_landmarks
        return _in_pixels(found[0], pixels) if found else None

    def close(self) -> None:
        """See `Estimator`."""
        self._landmarker.close()


def create(model_file: Path | None) -> Estimator:
    """Return the estimator of the model in the file, or of the full model that comes with mediapipe, warmed up."""
    with remarks.of_a_new_model():
        estimator = FullEstimator() if model_file is None else FileEstimator(model_file)
        # The first inference builds the graph, 0.2 s that no image should wait for.
        estimator.landmarks(np.zeros((LONGEST_SIDE, LONGEST_SIDE, 3), np.uint8))
    return estimator


def _in_pixels(landmarks: Any, pixels: Pixels) -> Landmarks:
    height, width = pixels.shape[:2]
    return np.array([(each.x * width, each.y * height, each.visibility) for each in landmarks])
