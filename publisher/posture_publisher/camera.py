"""Where pictures come from: a Pi's camera, a V4L2 device, or a directory that is replayed (replay.py)."""

import importlib
import io
import os
import sys
import time
import uuid
from contextlib import ExitStack, redirect_stderr
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from posture_common.service import LastingError

from .clock import Clock, Moment
from .spool import Picture

SIZE = (1280, 720)
"""Width and height in pixels that a camera is asked for: analysis works at 512, the rest is for people to look at."""
JPEG_QUALITY = 90
WARM_UP_S = 1.0
TAKE_TIMEOUT_S = 10.0


class CameraError(Exception):
    """There is no picture to be had now; trying again later may help."""


class Camera(Protocol):
    """A source of pictures, open while its `with` block runs."""

    live: bool
    """Whether a picture that is not taken now never comes back."""

    def __enter__(self) -> Self:
        """Open it; raises CameraError, or LastingError where only a person can help."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""

    def take(self) -> Picture | None:
        """Return a picture, or None where there is none at the moment; raises CameraError."""

    def spooled(self) -> None:
        """Hear that the picture taken last is on disk and need not be taken again."""


class LiveCamera:
    """What both kinds of real cameras share: their pictures are named by Pi and time, and never come back."""

    live = True

    def __init__(self, pi_id: str) -> None:
        self._pi_id = pi_id
        self._open = ExitStack()
        self._clock = Clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def spooled(self) -> None:
        """Nothing to note."""

    def _picture(self, moment: Moment, data: bytes) -> Picture:
        captured_at = moment.time
        return Picture(
            image_id=str(uuid.uuid4()),
            captured_at=captured_at,
            filename=f"{self._pi_id}-{captured_at:%Y%m%dT%H%M%S}.{captured_at.microsecond // 1000:03d}Z.jpg",
            data=data,
            clock="unsynchronised" if moment.doubt else None,
        )


class PiCamera(LiveCamera):
    """The camera on a Pi's ribbon cable, by picamera2."""

    def __enter__(self) -> Self:
        module = _load(
            "picamera2",
            "install it with apt install python3-picamera2, and run in a venv of the distribution's Python, made with "
            "--system-site-packages, that has no numpy and no OpenCV of its own (requirements/publisher.txt)",
        )
        try:
            self._camera = self._open.enter_context(module.Picamera2())
            self._camera.configure(self._camera.create_video_configuration(main={"size": SIZE}))
            self._camera.options["quality"] = JPEG_QUALITY
            self._camera.start()
        except Exception as error:  # libcamera's errors have no common class
            self._open.close()
            raise CameraError(
                f"cannot open the Pi's camera: {str(error) or type(error).__name__}; check its cable, that "
                "rpicam-hello --list-cameras shows it, and that no other program uses it"
            ) from error
        time.sleep(WARM_UP_S)  # exposure and white balance settle
        return self

    def take(self) -> Picture | None:
        """Return the next frame as JPEG."""
        buffer = io.BytesIO()
        moment = self._clock.read()
        try:
            self._camera.capture_file(buffer, format="jpeg", wait=TAKE_TIMEOUT_S)
        except Exception as error:  # as above
            raise CameraError(
                f"the Pi's camera gives no picture: {str(error) or type(error).__name__}; check its cable"
            ) from error
        return self._picture(moment, buffer.getvalue())


class V4l2Camera(LiveCamera):
    """A V4L2 device such as /dev/video0, by OpenCV."""

    def __init__(self, pi_id: str, device: Path) -> None:
        super().__init__(pi_id)
        self._device = device

    def __enter__(self) -> Self:
        self._cv2 = cv2 = _load("cv2", "install what requirements/publisher-v4l2.txt lists")
        if not self._device.exists():
            raise CameraError(f"camera {self._device} is not there: plug it in, or correct POSTURE_CAMERA")
        if not os.access(self._device, os.R_OK | os.W_OK):
            raise CameraError(
                f"camera {self._device} may not be used by user {os.geteuid()}: add that user to group video"
            )
        capture = cv2.VideoCapture(str(self._device), cv2.CAP_V4L2)
        self._open.callback(capture.release)
        if not capture.isOpened():
            self._open.close()
            raise CameraError(
                f"camera {self._device} does not open: another program uses it, or it is not a capture device "
                "(v4l2-ctl --list-devices shows which is)"
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, SIZE[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, SIZE[1])
        self._capture = capture
        return self

    def take(self) -> Picture | None:
        """Return the next frame as JPEG."""
        # The driver filled its one buffer right after the last picture: that frame is as old as that.
        self._capture.grab()
        moment = self._clock.read()
        taken, frame = self._capture.read()
        if not taken:
            raise CameraError(f"camera {self._device} gives no picture: check that it is still plugged in")
        encoded, data = self._cv2.imencode(".jpg", frame, [self._cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not encoded:
            raise CameraError(f"camera {self._device}: a frame of shape {frame.shape} cannot be encoded as JPEG")
        return self._picture(moment, data.tobytes())


def _load(module: str, remedy: str) -> Any:
    said = io.StringIO()
    try:
        # numpy writes a page about modules that were made for another one; its error says the same.
        with redirect_stderr(said):
            loaded = importlib.import_module(module)
    except Exception as error:  # what is built for another numpy, Python or libcamera fails as it likes
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise LastingError(f"Python module {module} cannot be imported ({cause}): {remedy}") from None
    sys.stderr.write(said.getvalue())
    return loaded
