"""The camera's side: takes a picture each interval and spools it, whatever the camera and the disk are doing."""

import logging
import time
from dataclasses import replace

from posture_common.service import Stop

from . import metrics
from .backoff import Backoff
from .camera import Camera, CameraError
from .outbox import Outbox
from .spool import DiskLowError, Picture, SpoolFullError, is_full_disk

log = logging.getLogger(__name__)

IDLE_S = 0.25
"""How soon a camera that has nothing new is asked again."""
IDLE_SHARE = 9.0
"""How many times as long as asking took the pause is at least: a directory of 100,000 files takes a while."""
NO_ROOM_S = 0.25
"""How often a picture that waits for room in the spool tries again."""
HUNG_AFTER_S = 60.0
"""How long a camera may take to open, or to give a picture; its own time limits are shorter."""
CATCH_UP_S = 1.0
"""How far a replay may lag behind its interval and still make up for it."""


class Intake:
    """Takes pictures until the stop.

    A live camera's picture that finds no room takes the oldest one's; one that the disk does not take is lost and
    counted. A replayed directory waits instead.

    Args:
        camera: where the pictures come from.
        outbox: where they go.
        interval: seconds between two pictures.
        rotate: degrees clockwise by which people must turn the pictures to see them upright.
        max_bytes: largest picture that is taken.
        stop: ends `run`.
    """

    def __init__(
        self, camera: Camera, outbox: Outbox, *, interval: float, rotate: int, max_bytes: int, stop: Stop
    ) -> None:
        self._camera = camera
        self._outbox = outbox
        self._interval = interval
        self._rotate = rotate
        self._max_bytes = max_bytes
        self._stop = stop
        self._opening = Backoff(log)
        self._storing = Backoff(log)
        self._asked_at: float | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong now: with the camera, or with the disk."""
        return self._opening.problem or self._storing.problem

    def alive(self) -> str | None:
        """Say that the camera's driver hangs, or None."""
        asked_at = self._asked_at
        if asked_at is None or (since := time.monotonic() - asked_at) <= HUNG_AFTER_S:
            return None
        return f"the camera has not answered for {since:.0f} s"

    def run(self) -> None:
        """Take pictures until the stop; raises LastingError where the camera can never be had."""
        while not self._stop.requested:
            self._asked_at = time.monotonic()
            try:
                with self._camera as camera:
                    self._asked_at = None
                    self._take_from(camera)
            except CameraError as error:
                self._asked_at = None
                self._stop.wait(self._opening.failed(str(error)))

    def _take_from(self, camera: Camera) -> None:
        due = time.monotonic()
        while not self._stop.requested:
            asked = self._asked_at = time.monotonic()
            picture = camera.take()
            self._asked_at = None
            took_s = time.monotonic() - asked
            if self._opening.worked():
                log.info("there are pictures again")
            if picture is not None:
                metrics.TAKEN.inc()
                self._store(camera, replace(picture, rotate=self._rotate))
            lag = 0.0 if camera.live else CATCH_UP_S
            pause = self._interval if picture is not None else max(IDLE_S, IDLE_SHARE * took_s)
            due = max(due + pause, time.monotonic() - lag)
            self._stop.wait(due - time.monotonic())

    def _store(self, camera: Camera, picture: Picture) -> None:
        if len(picture.data) > self._max_bytes:
            log.error(
                "a picture of %d bytes is not sent: the most is %d (POSTURE_MAX_IMAGE_BYTES, POSTURE_SPOOL_MAX_BYTES)",
                len(picture.data),
                self._max_bytes,
            )
            metrics.DROPPED.labels(reason="refused").inc()
            return
        while not self._stop.requested:
            try:
                if camera.live:
                    gave_up = self._outbox.put_in_place_of_oldest(picture)
                else:
                    self._outbox.put(picture)
                    gave_up = None
            except SpoolFullError as error:
                self._storing.failed(str(error), then="waiting until images are confirmed")
                self._stop.wait(NO_ROOM_S)
            except OSError as error:
                cause = "the disk is full: free space on it" if is_full_disk(error) else str(error.strerror)
                problem = f"cannot write to the spool: {cause}"
                if camera.live:
                    self._storing.failed(problem, then="pictures are lost until then")
                    metrics.DROPPED.labels(reason="disk").inc()
                    return
                self._stop.wait(self._storing.failed(problem))
            else:
                camera.spooled()
                self._tell(gave_up)
                return

    def _tell(self, gave_up: SpoolFullError | None) -> None:
        if gave_up:
            full = str(gave_up) if isinstance(gave_up, DiskLowError) else "the spool is full (POSTURE_SPOOL_MAX_BYTES)"
            self._storing.failed(full, then="the oldest images are given up")
        elif self._storing.worked():
            log.info("pictures are spooled again")
