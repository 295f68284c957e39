"""The offloader's side of the broker: what analyzers say of themselves, and the assignments that are retained there.

A thread of its own keeps the connection. What the broker has retained is known as a whole from the moment when a
message of our own has come back: the broker sends a client its messages in order. Until then, and while the connection
is lost, `synced_since` is None and nothing of this may be relied on.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from posture_common.mqtt import Broker, Connection, ConnectionLostError, Message
from posture_common.service import LastingError, Stop, delays

from .handover import State

log = logging.getLogger(__name__)

CLIENT_ID = "posture-offloader"
STATUS_TOPIC = "posture/offloader/status"
_MARK_TOPIC = "posture/offloader/mark"
_TOPICS = ("posture/streams/#", "posture/results/+", _MARK_TOPIC)
_ASSIGNMENT = re.compile(r"posture/streams/([^/]+)/assignment")
_STATUS = re.compile(r"posture/streams/([^/]+)/([0-9]+)/status")
_BATCH = 100

Assignment = tuple[int, str | None]
"""An epoch and its node, None where the stream is to end."""


class Board:
    """What is retained at the broker, while the `with` block runs.

    `changed` is called when an analyzer has said something new. Where the broker refuses us for good, `failure` says
    so and the stop is requested.
    """

    def __init__(self, broker: Broker, stop: Stop, *, changed: Callable[[], None]) -> None:
        self._broker = broker
        self._stop = stop
        self._changed = changed
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._states: dict[str, dict[int, tuple[State, float]]] = {}
        self._assignments: dict[str, Assignment] = {}
        self._frame_ages: dict[str, float] = {}
        self._status = ""
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
        if self.assignment(stream) != (epoch, node):
            self._retain(f"posture/streams/{stream}/assignment", json.dumps({"epoch": epoch, "node": node}))

    def forget_state(self, stream: str, epoch: int) -> None:
        """Take an epoch's state away."""
        self._retain(f"posture/streams/{stream}/{epoch}/status", "")

    def forget_stream(self, stream: str) -> None:
        """Delete the stream's durable session with the images that wait in it, and all that is retained of it.

        Raises ConnectionLostError, LastingError.
        """
        with Connection(self._broker, client_id=f"posture-stream-{stream}"):
            pass  # A clean start with an expiry of 0: the session that was there is gone, and so is this one.
        for epoch in self.states(stream):
            self.forget_state(stream, epoch)
        self._retain(f"posture/streams/{stream}/assignment", "")

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
        mark = f"{time.time()}"
        connection.publish(_MARK_TOPIC, mark)
        self._connection = connection
        for batch in connection.batches(_BATCH):
            for message in batch:
                message.acknowledge()
                if message.topic == _MARK_TOPIC and message.payload == mark.encode():
                    self.synced_since = time.time()
                    log.info("connected to %s", self._broker)
                    self._changed()
                else:
                    self._read(message)

    def _read(self, message: Message) -> None:
        if message.topic.startswith("posture/results/"):
            self._read_result(message.payload)
        elif found := _STATUS.fullmatch(message.topic):
            self._read_state(found[1], int(found[2]), message.payload)
        elif found := _ASSIGNMENT.fullmatch(message.topic):
            self._read_assignment(found[1], message.payload)

    def _read_state(self, stream: str, epoch: int, payload: bytes) -> None:
        said = _mapping(payload).get("state")
        with self._lock:
            states = self._states.setdefault(stream, {})
            if isinstance(said, str) and said in set(State):
                states[epoch] = (State(said), time.time())
            else:
                states.pop(epoch, None)
        self._changed()

    def _read_assignment(self, stream: str, payload: bytes) -> None:
        said = _mapping(payload)
        with self._lock:
            if isinstance(said.get("epoch"), int):
                self._assignments[stream] = (said["epoch"], said.get("node"))
            else:
                self._assignments.pop(stream, None)

    def _read_result(self, payload: bytes) -> None:
        row = _mapping(payload)
        try:
            began = datetime.fromisoformat(row["captured_time"] or row["received_time"])
            age = datetime.fromisoformat(row["analyzed_time"]) - began
            self._frame_ages[str(row["stream"])] = max(0.0, age.total_seconds())
        except (KeyError, TypeError, ValueError):
            return  # a row of another program's


def _mapping(payload: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(payload)
    except ValueError:
        return {}
    return said if isinstance(said, Mapping) else {}
