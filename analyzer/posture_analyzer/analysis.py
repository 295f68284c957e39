"""One image from its bytes to its posture and annotated picture: everything an analyzer computes."""

import logging
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from posture_common.service import FailedError

from . import estimator, heap, picture, privacy
from .angles import Landmarks, Look, Posture, judge, look
from .privacy import Withheld
from .sandbox import EndedError, KilledError, Sandbox
from .settings import AnalysisSettings

log = logging.getLogger(__name__)

DARK = 16
"""Mean of all channels, of 255, below which a picture is too dark to say that nobody is there."""
STRETCHED_FOR_S = 2.0
"""Whether a camera stretches people is looked at again after so long: at one image a second, for each."""
MOST_CAMERAS = 1000

# Workers are the parallelism; OpenCV's own threads would take their cores.
cv2.setNumThreads(1)
heap.keep_pictures()


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found in an image."""

    posture: Posture
    annotated: bytes | None = None
    """The annotated picture as JPEG; None where the image could not be decoded, or nothing of it is to be kept."""
    inference_ms: float | None = None
    problem: str | None = None
    """Why the image could not be decoded."""
    ended: bool = False
    """The image crashed its decoder, or made it go over a limit."""
    withheld: Withheld | None = None
    """Why nothing of the picture is to be kept."""


class Analyst:
    """Analyses images with a sandbox and a pose model of its own; one for each thread.

    Raises:
        LastingError: the model cannot be loaded.
    """

    def __init__(self, settings: AnalysisSettings) -> None:
        self._settings = settings
        self._looked: dict[str | None, tuple[float, bool]] = {}  # when, and whether the passes had missed somebody
        self._sandbox = Sandbox(max_pixels=settings.max_pixels, jpeg_quality=settings.jpeg_quality)
        self._estimator = estimator.create(settings.model_file)
        self._sandbox.await_start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the sandbox and give the model's memory back."""
        self._sandbox.close()
        self._close_estimator()

    def analyse(
        self, image: bytes, *, rotate: int = 0, cpu_s: float | None = None, camera: str | None = None
    ) -> Analysis:
        """Analyse one encoded image; a bad one gives a posture that says so.

        Args:
            image: the encoded image.
            rotate: degrees by which it is turned clockwise.
            cpu_s: processor seconds that its decoding may take, where that is not what its size suggests.
            camera: whose image it is, where several of one camera come.

        Raises:
            FailedError: the pose model fails, loaded anew too, or something ends the sandbox again and again: nothing
                is known of the image.
        """
        for tries_left in (1, 0):
            try:
                return self._analyse(image, rotate=rotate, cpu_s=cpu_s, camera=camera)
            except KilledError as error:
                if not tries_left:
                    raise FailedError(f"{error}, twice at one image, which is not acknowledged") from None
                log.warning("%s: the image is tried once more", error)
            except picture.UndecodableError as error:
                return undecodable(str(error), ended=isinstance(error, EndedError))
        raise AssertionError("unreachable")

    def _analyse(self, image: bytes, *, rotate: int, cpu_s: float | None, camera: str | None) -> Analysis:
        small = self._sandbox.open(image, rotate=rotate, cpu_s=cpu_s)
        started = time.perf_counter()
        passes = self._passes(small)
        inference_ms = 1e3 * (time.perf_counter() - started)
        posture = self._judge(passes, small, camera)
        looks = [landmarks for landmarks in passes if landmarks is not None]
        kept = privacy.backdrop(
            looks,
            posture,
            pictures=self._settings.pictures,
            blur_faces=self._settings.blur_faces,
            size=(small.shape[1], small.shape[0]),
        )
        if isinstance(kept, Withheld):
            return Analysis(posture, None, inference_ms, withheld=kept)
        return Analysis(posture, self._sandbox.annotate(looks, posture, backdrop=kept), inference_ms)

    def _judge(self, passes: list[Landmarks | None], small: picture.Pixels, camera: str | None) -> Posture:
        height, width = small.shape[:2]
        looks: list[Look | None] = [
            None if landmarks is None else look(landmarks, width=width, height=height) for landmarks in passes
        ]
        return judge(
            looks,
            neck_threshold=self._settings.neck_threshold,
            body_threshold=self._settings.body_threshold,
            may_miss=not any(looks) and self._may_miss(small, camera),
        )

    def _may_miss(self, small: picture.Pixels, camera: str | None) -> bool:
        """Whether somebody may be there although the passes found nobody."""
        if self._settings.passes == 1 or small.mean() < DARK:
            return True
        looked_at, missed = self._looked.get(camera, (-math.inf, False))
        if camera is None or time.monotonic() - looked_at > STRETCHED_FOR_S:
            missed = self._landmarks(picture.narrowed(small)) is not None
            if len(self._looked) == MOST_CAMERAS:
                self._looked.clear()
            self._looked[camera] = time.monotonic(), missed
        return missed

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
            log.warning("the pose model failed (%s): it is loaded anew", _first_line(error))
        self._close_estimator()
        self._estimator = estimator.create(self._settings.model_file)
        try:
            return self._estimator.landmarks(small)
        except (RuntimeError, ValueError) as error:
            raise FailedError(
                f"the pose model fails, loaded anew too: {_first_line(error)}; the image is not acknowledged: start "
                "the analyzer again, elsewhere if this machine's memory or model file may be damaged"
            ) from None

    def _close_estimator(self) -> None:
        with suppress(RuntimeError, ValueError):  # a broken graph says once more what broke it
            self._estimator.close()


def undecodable(problem: str, *, ended: bool = False) -> Analysis:
    """Return the analysis of an image that cannot be decoded."""
    return Analysis(Posture("Undecodable image"), problem=problem, ended=ended)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
