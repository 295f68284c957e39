"""Who decides whether an analyzer may own its stream: nobody else, or the epoch that the stream is assigned to.

    main thread                        control thread, with a connection of its own
    the state we are in  -->           said, retained, anew on each connection; the last will says `gone`
    may we connect?      <--           the newest assignment and what the stream's other analyzers say
    the stop             <-- request   a newer epoch is assigned

Whatever we say comes back to us, after everything that the broker had for us before: once the newest of it is back,
nothing that matters is still on its way. So no timeout has to guess whether a retained message exists.
"""

import logging
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self
from uuid import uuid4

from posture_common.epochs import STREAMS, Assignment, MalformedError, State, Status, status_topic
from posture_common.mqtt import (
    NOT_AUTHORIZED,
    STEADY_S,
    Broker,
    Connection,
    ConnectionLostError,
    Message,
    PublishRefusedError,
    Will,
)
from posture_common.service import LastingError, Stop, delays

from . import metrics
from .epochs import TAKE_OVER_AFTER_S, Heard, Step
from .settings import AnalyzerSettings

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger(__name__)

ECHO_TIMEOUT_S = 5.0
FAREWELL_TIMEOUT_S = 5.0
FAREWELL_RETRY_S = 0.2
LARGEST_BATCH = 32
MALFORMED_TOLD_MAX = 100


class Control(Protocol):
    """What allows an analyzer to own its stream, while the `with` block runs."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def await_turn(self) -> bool:
        """Say that we are ready, and wait until the stream is ours to connect to (True) or the stop is requested."""

    def say(self, state: State) -> None:
        """Tell everybody the state that we are in now."""

    @property
    def standing_by(self) -> bool:
        """Whether we are ready and the stream is not ours yet."""

    def trouble(self) -> str | None:
        """Say what keeps us from hearing whose the stream is, or None."""


class NoControl:
    """The process form: nobody else has the stream, it is always ours."""

    standing_by = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def await_turn(self) -> bool:
        """Return at once."""
        return True

    def say(self, state: State) -> None:
        """Nobody listens."""

    def trouble(self) -> str | None:
        """There is none."""
        return None


class EpochControl:
    """The Job form: the stream is ours while it is assigned to our epoch.

    A newer epoch's assignment requests the stop. Leaving the block says `done`, or `gone` where an error ends it; it
    raises what ended the control connection for good.
    """

    def __init__(self, settings: AnalyzerSettings, epoch: int, stop: Stop) -> None:
        self._broker = Broker.of(settings)
        self._node = settings.node
        self._epoch = epoch
        self._stop = stop
        self._client_id = f"posture-ctl-{settings.stream}-{epoch}"
        self._prefix = f"{STREAMS}/{settings.stream}/"
        self._topic = status_topic(settings.stream, epoch)
        self._changed = threading.Condition()
        # Guarded by it; what was said last, its mark and its acknowledgement, and whether it came back.
        self._state = State.WARMING
        self._mark = ""
        self._word: Future[bool] | None = None
        self._echoed = False
        self._connection: Connection | None = None
        self._heard = Heard(epoch=epoch)
        self._assigned_at = 0.0
        self._trouble: str | None = "no word from the broker yet"
        self._malformed: set[tuple[str, str]] = set()
        self._failure: LastingError | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.say(State.DONE if error is None and self._failure is None else State.GONE)
        self._ending.set()
        with self._changed:
            if self._connection is not None:
                self._connection.interrupt()
        self._thread.join(FAREWELL_TIMEOUT_S)
        if self._thread.is_alive():
            log.warning("%s could not be told that epoch %s is %s", self._broker, self._epoch, self._state)
        if self._failure is not None and error is None:
            raise self._failure

    def await_turn(self) -> bool:
        """Say that we are ready, and wait until the stream is ours to connect to (True) or the stop is requested."""
        with self._stop.calling(self._wake), self._changed:
            self._speak(State.READY if self._state is State.WARMING else self._state)
            while not self._stop.requested:
                if not self._fresh:
                    self._await_echo()
                elif self._step is Step.CONNECT:
                    return True
                else:
                    self._changed.wait(self._until_take_over_s)
        return False

    def say(self, state: State) -> None:
        """Tell everybody the state that we are in now."""
        with self._changed:
            if state is self._state:
                return
            if state is State.ACTIVE and self._epoch > 1:
                metrics.HANDOVERS.labels("in").inc()
            self._speak(state)

    @property
    def standing_by(self) -> bool:
        """Whether we are ready and the stream is not ours yet."""
        return self._state is State.READY

    def trouble(self) -> str | None:
        """Say what keeps us from hearing whose the stream is, or None."""
        return self._trouble

    @property
    def _fresh(self) -> bool:
        """Whether all that the broker had for us when we last spoke is here."""
        return self._connection is not None and self._echoed

    @property
    def _step(self) -> Step:
        return self._heard.step(assigned_s=time.monotonic() - self._assigned_at)

    @property
    def _until_take_over_s(self) -> float | None:
        """How long to wait for a word until the clock alone may change what to do; None: it cannot."""
        return TAKE_OVER_AFTER_S - (time.monotonic() - self._assigned_at) if self._heard.assigned else None

    def _await_echo(self) -> None:
        """Wait until what we said is back; where it does not come, let the control thread try another connection."""
        came = self._changed.wait_for(lambda: self._fresh or self._stop.requested, ECHO_TIMEOUT_S)
        if not came and self._connection is not None:
            self._connection.interrupt()

    def _speak(self, state: State) -> None:
        """Say the state on the connection that is, or the next; the lock is held."""
        self._state = state
        self._mark = uuid4().hex
        self._word = None
        self._echoed = False
        if (connection := self._connection) is None:
            return
        payload = Status(epoch=self._epoch, node=self._node, state=state).model_dump_json()
        self._word = connection.publish(self._topic, payload, properties={"mark": self._mark}, retain=True)
        self._word.add_done_callback(lambda word: connection.interrupt() if word.exception() else None)

    def _run(self) -> None:
        """What the control thread does: hold a connection, whatever happens to it, until the last word is said."""
        waits = delays()
        while not self._farewell_said:
            began = time.monotonic()
            try:
                with self._connect() as connection:
                    self._converse(connection)
            except LastingError as error:
                self._failure = error
                self._stop.request()
                return
            except ConnectionLostError as error:
                if self._trouble is None:
                    log.warning("control connection: %s; trying again", error)
                self._trouble = str(error)
                if time.monotonic() - began > STEADY_S:
                    waits = delays()
                if self._ending.is_set():
                    time.sleep(FAREWELL_RETRY_S)
                else:
                    self._ending.wait(next(waits))

    @property
    def _farewell_said(self) -> bool:
        word = self._word
        return self._ending.is_set() and word is not None and word.done() and word.exception() is None

    def _connect(self) -> Connection:
        gone = Status(epoch=self._epoch, node=self._node, state=State.GONE).model_dump_json()
        return Connection(
            self._broker, client_id=self._client_id, topics=[f"{self._prefix}#"], will=Will(self._topic, gone)
        )

    def _converse(self, connection: Connection) -> None:
        """Say the present state and hear what there is, until the end or the loss of the connection."""
        with self._changed:
            self._connection = connection
            self._heard = self._heard.without_states()
            self._speak(self._state)
            if self._ending.is_set():
                connection.interrupt()
        try:
            for messages in connection.batches(LARGEST_BATCH):
                for message in messages:
                    self._hear(message)
                    message.acknowledge()
        except ConnectionLostError:
            self._check_word()
            raise
        finally:
            with self._changed:
                self._connection = None
        if not self._ending.is_set():
            self._check_word()
            raise ConnectionLostError(
                f"{self._broker} does not send back what we say on {self._topic}; "
                "its access list must let us read and write there"
            )

    def _hear(self, message: Message) -> None:
        with self._changed:
            if message.topic == self._topic:
                # Not the will, and not what was retained on an earlier connection.
                if message.properties.get("mark") == self._mark:
                    self._echoed = True
                    self._trouble = None
            else:
                self._heed(message)
            successor = self._heard.successor
            self._changed.notify_all()
        if successor is not None and not self._stop.requested:
            self._leave_to(successor)

    def _heed(self, message: Message) -> None:
        assigned = self._heard.assigned
        try:
            self._heard = self._heard.on_message(message.topic.removeprefix(self._prefix), message.payload)
        except MalformedError as error:
            # The broker repeats a retained one on each connection.
            what = message.topic[:100], str(error)
            if what not in self._malformed and len(self._malformed) < MALFORMED_TOLD_MAX:
                self._malformed.add(what)
                log.warning("ignored a message on %s: %s", *what)
        if self._heard.assigned and not assigned:
            self._assigned_at = time.monotonic()

    def _leave_to(self, successor: Assignment) -> None:
        log.info("the stream belongs to epoch %s on %s now: stopping", successor.epoch, successor.node or "no node")
        if self._state is State.ACTIVE and successor.node is not None:
            metrics.HANDOVERS.labels("out").inc()
        self._stop.request()

    def _check_word(self) -> None:
        """Raise what the broker refused our last word with, if it did."""
        word = self._word
        error = word.exception() if word is not None and word.done() else None
        if not isinstance(error, PublishRefusedError):
            return
        if error.code == NOT_AUTHORIZED:
            raise LastingError(
                f"{error}: user {self._broker.user!r} may not write to {self._topic}; check the broker's access list"
            )
        raise ConnectionLostError(str(error))

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def control_of(settings: AnalyzerSettings, stop: Stop) -> Control:
    """Return what allows this analyzer to own its stream."""
    return NoControl() if settings.epoch is None else EpochControl(settings, settings.epoch, stop)
