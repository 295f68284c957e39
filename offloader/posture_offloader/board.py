"""The offloader's side of the broker: what analyzers say of themselves, and the assignments that are retained there.

A thread of its own keeps the connection. What the broker has retained is known as a whole from the moment when a
message of our own has come back: the broker sends a client its messages in order. Until then, and while the connection
is lost, `synced_since` is None and nothing of this may be relied on.
"""

import json
import logging
import secrets
import threading
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from posture_common.epochs import (
    ASSIGNMENT,
    STREAMS,
    Assignment,
    MalformedError,
    State,
    Status,
    assignment_topic,
    epoch_of,
    status_topic,
    trial_topic,
)
from posture_common.mqtt import Broker, Connection, ConnectionLostError, Message
from posture_common.service import LastingError, Stop, delays
from posture_common.times import frame_began

log = logging.getLogger(__name__)

CLIENT_ID = "posture-offloader"
STATUS_TOPIC = "posture/offloader/status"
_MARK_TOPIC = "posture/offloader/mark"
_RESULTS = "posture/results"
_TOPICS = (f"{STREAMS}/#", f"{_RESULTS}/+", _MARK_TOPIC)
_BATCH = 100
_TOLD_MAX = 100
_RESULT_BYTES_MAX = 65_536


class Board:
    """What is retained at the broker, while the `with` block runs.

    `changed` is called when an analyzer has said something new. Where the broker refuses us for good, `failure` says
    so and the stop is requested.
    """

    def __init__(self, broker: Broker, stop: Stop, *, changed: Callable[[], None], clock: Callable[[], float]) -> None:
        self._broker = broker
        self._stop = stop
        self._changed = changed
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._states: dict[str, dict[int, tuple[State, float]]] = {}
        self._assignments: dict[str, Assignment] = {}
        self._frame_ages: dict[str, float] = {}
        self._status = ""
        self._malformed: set[tuple[str, str]] = set()
        self.synced_since: float | None = None
        self.trouble = f"{broker}: not connected yet"
        self.failure: LastingError | None = None
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.request()
        self._thread.join(10)

    def states(self, stream: str) -> dict[int, tuple[State, float]]:
        """Return each epoch's state and when it was heard (seconds since 1970)."""
        with self._lock:
            return dict(self._states.get(stream, {}))

    def assignment(self, stream: str) -> Assignment | None:
        """Return the stream's retained assignment."""
        with self._lock:
            return self._assignments.get(stream)

    def frame_age_s(self, stream: str) -> float | None:
        """Return how long the stream's newest row took, from capture or arrival to its analysis, in seconds."""
        return self._frame_ages.get(stream)

    def assign(self, stream: str, epoch: int, node: str | None) -> None:
        """Retain an assignment, unless it is retained already."""
        assignment = Assignment(epoch=epoch, node=node)
        if self.assignment(stream) != assignment:
            self._retain(assignment_topic(stream), assignment.model_dump_json())

    def withdraw(self, stream: str) -> None:
        """Take the stream's assignment away."""
        self._retain(assignment_topic(stream), "")
        self._retain(trial_topic(stream), "")

    def forget_state(self, stream: str, epoch: int) -> None:
        """Take an epoch's state away."""
        self._retain(status_topic(stream, epoch), "")

    def forget_stream(self, stream: str) -> None:
        """Delete the stream's durable session with the images that wait in it, and all that is retained of it.

        Raises ConnectionLostError, LastingError.
        """
        with Connection(self._broker, client_id=f"posture-stream-{stream}"):
            pass  # A clean start with an expiry of 0: the session that was there is gone, and so is this one.
        for epoch in self.states(stream):
            self.forget_state(stream, epoch)
        self.withdraw(stream)

    def show(self, status: str) -> None:
        """Retain the offloader's status, unless it is what is retained already."""
        if self.synced_since is not None and status != self._status:
            self._retain(STATUS_TOPIC, status)
            self._status = status

    def _retain(self, topic: str, payload: str) -> None:
        connection = self._connection
        if connection is not None:
            # Whether it arrived shows when it comes back: what is missing is said again at the next look.
            connection.publish(topic, payload, retain=True)

    def _run(self) -> None:
        waits = delays()
        while not self._stop.requested:
            try:
                with (
                    Connection(self._broker, client_id=CLIENT_ID, topics=_TOPICS) as connection,
                    self._stop.calling(connection.interrupt),
                ):
                    waits = delays()
                    self._follow(connection)
            except ConnectionLostError as error:
                self.trouble = str(error)
                log.warning("%s; nothing moves until it is back", error)
            except LastingError as error:
                self.failure = error
                self._stop.request()
            finally:
                self._connection = self.synced_since = None
                self._changed()
            self._stop.wait(next(waits))

    def _follow(self, connection: Connection) -> None:
        with self._lock:
            self._states.clear()
            self._assignments.clear()
        self._status = ""
        mark = secrets.token_hex(8)
        connection.publish(_MARK_TOPIC, mark)
        self._connection = connection
        for batch in connection.batches(_BATCH):
            for message in batch:
                message.acknowledge()
                if message.topic == _MARK_TOPIC and message.payload == mark.encode():
                    self.synced_since = self._clock()
                    log.info("connected to %s", self._broker)
                    self._changed()
                else:
                    self._read(message)

    def _read(self, message: Message) -> None:
        place, _, topic = message.topic.removeprefix(f"{STREAMS}/").partition("/")
        try:
            if message.topic.startswith(f"{_RESULTS}/"):
                self._read_result(message.payload)
            elif topic == ASSIGNMENT:
                self._read_assignment(place, message.payload)
            elif (epoch := epoch_of(topic)) is not None:
                self._read_state(place, epoch, message.payload)
        except MalformedError as error:
            if not message.payload:
                return
            what = message.topic[:100], str(error)
            if what not in self._malformed and len(self._malformed) < _TOLD_MAX:
                self._malformed.add(what)
                log.warning("cleared a message on %s: %s", *what)
            # Where it is retained, nothing else is there, and it would come again on each connection.
            self._retain(message.topic, "")

    def _read_state(self, stream: str, epoch: int, payload: bytes) -> None:
        said = Status.parse(payload).state if payload else None
        with self._lock:
            states = self._states.setdefault(stream, {})
            if said is None:
                states.pop(epoch, None)
            else:
                states[epoch] = (said, self._clock())
        self._changed()

    def _read_assignment(self, stream: str, payload: bytes) -> None:
        said = Assignment.parse(payload) if payload else None
        with self._lock:
            if said is None:
                self._assignments.pop(stream, None)
            else:
                self._assignments[stream] = said

    def _read_result(self, payload: bytes) -> None:
        if len(payload) > _RESULT_BYTES_MAX:
            return
        try:
            row = json.loads(payload)
            captured = row["captured_time"]
            began = frame_began(
                captured=None if captured is None else datetime.fromisoformat(captured),
                received=datetime.fromisoformat(row["received_time"]),
                clock_suspect=bool(row.get("clock_suspect")),
            )
            age = datetime.fromisoformat(row["analyzed_time"]) - began
            self._frame_ages[str(row["stream"])] = max(0.0, age.total_seconds())
        except (KeyError, RecursionError, TypeError, ValueError):
            return  # a row of another program's
