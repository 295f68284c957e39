"""The running publisher: its threads, from start to stop.

    camera thread       Intake: camera.take -> spool -> delivery
    connection thread   Uplink: keeps the connection; a result frees its image
    sender thread       Uplink, while connected: delivery -> spool.read -> publish
    paho's thread       the broker's answer -> delivery
    main thread         waits for the stop

All meet in the Outbox. At most `delivery.AT_ONCE` images are in memory on their way out, and one on its way in.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from posture_common.mqtt import Broker
from posture_common.service import Stop, status_server

from . import metrics
from .camera import Camera, PiCamera, V4l2Camera
from .delivery import Delivery
from .intake import Intake
from .outbox import Outbox
from .replay import Replay
from .settings import PublisherSettings
from .spool import Spool
from .uplink import Uplink

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 8.0
"""A thread that hangs in a camera's driver or a name server does not hold up the stop for longer."""


def run(settings: PublisherSettings, stop: Stop) -> None:
    """Publish until the stop.

    Raises:
        LastingError: only a person can help.
        OSError: the spool cannot be opened for now.
    """
    with Spool(
        settings.spool_dir, max_bytes=settings.spool_max_bytes, pi_id=settings.pi_id, floor=settings.disk_floor
    ) as spool:
        delivery = Delivery(
            window=settings.window,
            confirm_timeout=settings.confirm_timeout,
            reconnect_timeout=settings.reconnect_timeout,
        )
        outbox = Outbox(spool, delivery)
        intake = Intake(
            camera_of(settings),
            outbox,
            interval=settings.interval,
            rotate=settings.camera_rotate,
            max_bytes=largest_image(settings),
            stop=stop,
        )
        uplink = Uplink(outbox, Broker.of(settings), pi_id=settings.pi_id, encoding=settings.encoding, stop=stop)
        log.info(
            "%s publishes %s to %s:%d; %d images wait in %s; SIGTERM stops it",
            settings.pi_id,
            settings.camera,
            settings.mqtt_host,
            settings.mqtt_port,
            len(spool),
            settings.spool_dir,
        )
        with status_server(
            settings.http_host,
            settings.http_port,
            alive=intake.alive,
            ready=lambda: uplink.problem or intake.problem,
        ):
            _run_threads({"camera": intake.run, "connection": uplink.run}, stop)
        log.info("stopped; %d images stay in the spool", len(spool))


def camera_of(settings: PublisherSettings) -> Camera:
    """Return the camera that the settings name, not yet open."""
    kind, _, place = settings.camera.partition(":")
    if kind == "picamera2":
        return PiCamera(settings.pi_id)
    if kind == "v4l2":
        return V4l2Camera(settings.pi_id, Path(place))
    return Replay(
        settings.pi_id,
        Path(place),
        notes=settings.spool_dir / "replay.jsonl",
        rounds=settings.replay_rounds,
        max_bytes=largest_image(settings),
        refused=metrics.DROPPED.labels(reason="refused").inc,
    )


def largest_image(settings: PublisherSettings) -> int:
    """Return how many bytes an image may have: a larger one would never get into the spool, or out of it."""
    header_bytes = 1024
    return max(0, min(settings.max_image_bytes, settings.spool_max_bytes - header_bytes))


def _run_threads(parts: dict[str, Callable[[], None]], stop: Stop) -> None:
    """Run the parts side by side until the stop; one that fails stops all, and its error is raised here."""
    failures: list[BaseException] = []

    def guarded(part: Callable[[], None]) -> None:
        try:
            part()
        except BaseException as error:  # raised again below
            failures.append(error)
            stop.request()

    threads = [threading.Thread(target=guarded, args=(part,), name=name, daemon=True) for name, part in parts.items()]
    for thread in threads:
        thread.start()
    stop.wait()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            log.warning("the %s does not answer: leaving it", thread.name)
    if failures:
        raise failures[0]
