"""The running analyzer: warm up, wait for its turn, own the stream's session at the broker, take what comes, drain."""

import logging
import secrets
import time

from posture_common.epochs import State
from posture_common.mqtt import STEADY_S, Broker, Connection, ConnectionLostError, broker_version
from posture_common.service import Stop, delays, status_server

from . import metrics
from .control import control_of
from .figures import broker_figures
from .pipeline import LARGEST_BATCH, Pipeline
from .settings import AnalyzerSettings
from .trial import Trial

log = logging.getLogger(__name__)

SESSION_EXPIRY_S = 30 * 24 * 3600
MESSAGES_PER_WORKER = 4
"""How many messages are here for each worker: in work, waiting to be, and waiting for their commit."""
FIRST_WITH_FLOW_CONTROL = (2, 0, 13)
"""Older mosquittos forget the receive maximum as soon as acknowledgements flow, unless it is 1."""


class Analyzer:
    """An analyzer of one stream."""

    def __init__(self, settings: AnalyzerSettings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._broker = Broker.of(settings)
        self._control = control_of(settings, stop)
        self._trial = Trial(self._broker, stream=settings.stream, workers=settings.workers)
        self._pipeline = Pipeline(settings, stop, self._trial)
        self._not_ready: str | None = "warming up"

    def run(self) -> None:
        """Analyse the stream's images, while it is ours, until the stop is requested.

        Raises:
            LastingError: only a person can help: a refused password, a missing table, a port in use.
        """
        settings, stop, control, pipeline = self._settings, self._stop, self._control, self._pipeline
        with (
            status_server(
                settings.http_host, settings.http_port, alive=pipeline.alive, ready=self._ready, note=pipeline.note
            ),
            broker_figures(self._broker, settings.stream, stop),
            control,
            pipeline,
        ):
            pipeline.warm_up()
            waits = delays()
            while not stop.requested:
                began = time.monotonic()
                try:
                    connection = self._stream()
                    if control.await_turn():
                        self._trial.begin()
                        with connection, stop.calling(connection.interrupt):
                            self._serve(connection)
                except ConnectionLostError as error:
                    self._not_ready = str(error)
                    log.warning("%s; trying again, the broker keeps the stream's images", error)
                    if time.monotonic() - began > STEADY_S:
                        waits = delays()
                    stop.wait(next(waits))
            pipeline.drain()
            if not pipeline.died:
                self._trial.finish()

    def _stream(self) -> Connection:
        """Return a connection to the stream's session, not yet open; whoever holds it open owns the stream."""
        stream = self._settings.stream
        # Several analyzers of a stream may ask at once.
        version = broker_version(self._broker, client_id=f"posture-version-{stream}-{secrets.token_hex(4)}")
        old = version is not None and version < FIRST_WITH_FLOW_CONTROL
        if old:
            log.warning("mosquitto older than 2.0.13 cannot limit what it sends: one image at a time")
        return Connection(
            self._broker,
            client_id=f"posture-stream-{stream}",
            topics=[self._settings.topic],
            session_expiry_s=SESSION_EXPIRY_S,
            receive_maximum=1 if old else MESSAGES_PER_WORKER * self._settings.workers,
            retained_again=False,
            on_mishap=metrics.count_mishap,
        )

    def _serve(self, connection: Connection) -> None:
        log.info("stream %s: taking images from %s on %s", self._settings.stream, self._settings.topic, self._broker)
        self._not_ready = None
        self._control.say(State.ACTIVE)
        metrics.READY.set(1)
        try:
            for messages in connection.batches(LARGEST_BATCH):
                self._pipeline.take(messages, connection)
            self._not_ready = "stopping"
            self._control.say(State.DRAINING)
            self._pipeline.drain()
        finally:
            metrics.READY.set(0)

    def _ready(self) -> str | None:
        stream = None if self._control.standing_by else self._not_ready
        return "; ".join(filter(None, [stream, self._control.trouble(), self._pipeline.trouble()])) or None
