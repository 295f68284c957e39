"""One image from its bytes to its posture and annotated picture: everything an analyzer computes."""

import logging
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from . import estimator, picture
from .angles import Landmarks, Look, Posture, judge, look
from .annotate import annotate
from .settings import AnalysisSettings

log = logging.getLogger(__name__)

# Workers are the parallelism; OpenCV's own threads would take their cores.
cv2.setNumThreads(1)


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found in an image."""

    posture: Posture
    annotated: bytes | None = None
    """The annotated picture as JPEG; None where the image could not be decoded."""
    inference_ms: float | None = None
    problem: str | None = None
    """Why the image could not be decoded."""


class Analyst:
    """Analyses images with a pose model of its own; one for each thread.

    Raises:
        LastingError: the model cannot be loaded.
    """

    def __init__(self, settings: AnalysisSettings) -> None:
        self._settings = settings
        self._estimator = estimator.create(settings.model_file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the model's memory back."""
        self._estimator.close()

    def analyse(self, image: bytes) -> Analysis:
        """Analyse one encoded image; a bad one gives a posture that says so."""
        try:
            pixels = picture.read(image, max_pixels=self._settings.max_pixels)
            return self._analyse(pixels)
        except picture.UndecodableError as error:
            return undecodable(str(error))
        except cv2.error as error:
            # Not foreseen, but one picture must never stop the stream.
            return undecodable(f"OpenCV refuses the picture: {error.err}")

    def _analyse(self, pixels: picture.Pixels) -> Analysis:
        small = picture.resize(pixels)
        height, width = small.shape[:2]
        started = time.perf_counter()
        passes = self._passes(small)
        inference_ms = 1e3 * (time.perf_counter() - started)

        looks: list[Look | None] = [
            None if landmarks is None else look(landmarks, width=width, height=height) for landmarks in passes
        ]
        posture = judge(
            looks, neck_threshold=self._settings.neck_threshold, body_threshold=self._settings.body_threshold
        )
        shown = next((landmarks for landmarks in passes if landmarks is not None), None)
        if shown is not None:
            shown = shown * (pixels.shape[1] / width, pixels.shape[0] / height, 1)
        annotate(pixels, shown, posture)
        return Analysis(posture, picture.to_jpeg(pixels, quality=self._settings.jpeg_quality), inference_ms)

    def _passes(self, small: picture.Pixels) -> list[Landmarks | None]:
        """Find the landmarks in the picture as it is and, with two passes, mirrored and turned back."""
        passes = [self._landmarks(small)]
        if self._settings.passes == 2:
            mirrored = self._landmarks(cv2.flip(small, 1).astype(np.uint8, copy=False))
            if mirrored is not None:
                mirrored[:, 0] = small.shape[1] - mirrored[:, 0]
            passes.append(mirrored)
        return passes

    def _landmarks(self, small: picture.Pixels) -> Landmarks | None:
        try:
            return self._estimator.landmarks(small)
        except (RuntimeError, ValueError) as error:
            log.warning("the pose model failed (%s): it is loaded anew", str(error).partition("\n")[0])
            self._estimator = estimator.create(self._settings.model_file)
            raise picture.UndecodableError("the pose model failed on this picture") from None


def undecodable(problem: str) -> Analysis:
    """Return the analysis of an image that cannot be decoded."""
    return Analysis(Posture("Undecodable image"), problem=problem)
