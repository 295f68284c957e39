"""Which images the analyzers of a stream died of, retained at the broker for the analyzer that comes next.

    posture/streams/<stream>/trial     {"owner": "3f…", "workers": 2, "alone": [pi_id, image_id], "ended": [[…], …]}

The note stands there while an analyzer owns the stream, and is cleared when that one ends well. Who finds another's
note knows that its owner died. The images that then come again first were in work at that death: each is tried alone,
and written down as `alone` before it is begun. An image that stands there at the next start was in work at two deaths;
it is not tried a third time, on whichever node.
"""

import json
import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Self

from posture_common.epochs import trial_topic
from posture_common.mqtt import Broker, Connection, ConnectionLostError, PublishRefusedError
from posture_common.service import LastingError

from .database import Key

log = logging.getLogger(__name__)

PATIENCE_S = 2.0
_LONGEST_NOTE = 2**16
_MOST_WORKERS = 64
_MOST_ENDED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What the owner of a stream has written down."""

    owner: str
    workers: int
    """How many images are in work at a time."""
    alone: Key | None = None
    """The image that is tried alone, because an earlier analyzer died with it in work."""
    ended: tuple[Key, ...] = ()
    """Images that were in work at two deaths and have no row yet."""

    @classmethod
    def parse(cls, payload: bytes) -> Self | None:
        """Return the note, or None where there is none that makes sense."""
        try:
            values = json.loads(payload[:_LONGEST_NOTE])
            return cls(
                owner=str(values["owner"]),
                workers=min(_MOST_WORKERS, int(values["workers"])),
                alone=None if values["alone"] is None else _key(values["alone"]),
                ended=tuple(map(_key, values["ended"])),
            )
        except (ValueError, OverflowError, KeyError, TypeError, RecursionError):
            return None

    def to_json(self) -> str:
        """Return the note as the broker keeps it."""
        return json.dumps(asdict(self))

    def inherited(self, *, owner: str, workers: int) -> Self:
        """Return the note of the analyzer that follows the one that died."""
        ended = [key for key in self.ended if key != self.alone] + ([self.alone] if self.alone else [])
        return replace(self, owner=owner, workers=workers, alone=None, ended=tuple(ended[-_MOST_ENDED:]))


def _key(values: list[str]) -> Key:
    pi_id, image_id = map(str, values)
    return pi_id, image_id


class Trial:
    """This analyzer's note; for one thread.

    Where the broker does not let it be kept, that is logged once and images are simply tried.
    """

    def __init__(self, broker: Broker, *, stream: str, workers: int) -> None:
        self._broker = broker
        self._topic = trial_topic(stream)
        self._client_id = f"posture-trial-{stream}-{secrets.token_hex(4)}"
        self._note = Note(owner=secrets.token_hex(8), workers=workers)
        self._suspects = 0
        self._problem: str | None = None

    def begin(self) -> None:
        """Become the owner, and learn what a former one died of."""

        def succeed(former: Note | None) -> str:
            if former is not None and former.owner != self._note.owner:
                self._note = former.inherited(owner=self._note.owner, workers=self._note.workers)
                self._suspects = former.workers
            if self._suspects:
                log.warning(
                    "the stream's last analyzer died: up to %d images that it had in work are tried one at a time",
                    self._suspects,
                )
            return self._note.to_json()

        self._answer(succeed)

    def finish(self) -> None:
        """Say that this analyzer ended well, unless another owns the stream by now."""

        def leave(retained: Note | None) -> str | None:
            if retained is None or retained.owner != self._note.owner:
                return None
            return replace(self._note, workers=0, alone=None).to_json() if self._note.ended else ""

        self._answer(leave)

    def ended_twice(self, key: Key) -> bool:
        """Whether the image was in work at two deaths."""
        return key in self._note.ended

    def suspects(self, *, redelivered: bool) -> bool:
        """Whether the image that is to be begun next may be what the last analyzer died of."""
        if not redelivered or self._suspects == 0:
            return False
        self._suspects -= 1
        return True

    def try_alone(self, key: Key) -> None:
        """Write down that the image is about to be begun."""
        self._note = replace(self._note, alone=key)
        self._retain()

    def settled(self, key: Key) -> None:
        """Write down that the image has its row."""
        ended = tuple(each for each in self._note.ended if each != key)
        self._note = replace(self._note, alone=None, ended=ended)
        self._retain()

    def _answer(self, reply: Callable[[Note | None], str | None]) -> None:
        """Retain what `reply` makes of the note that the broker has retained; None leaves that as it is."""
        mark = json.dumps({"mark": secrets.token_hex(8)}).encode()
        found = None
        try:
            with Connection(self._broker, client_id=self._client_id, topics=[self._topic]) as connection:
                patience = threading.Timer(PATIENCE_S, connection.interrupt)
                patience.start()
                try:
                    connection.publish(self._topic, mark).result(PATIENCE_S)
                    for [message] in connection.batches(1):
                        message.acknowledge()
                        if message.payload == mark:  # what was retained came before it
                            payload = reply(found)
                            if payload is not None:
                                connection.publish(self._topic, payload, retain=True).result(PATIENCE_S)
                            return
                        found = Note.parse(message.payload)
                finally:
                    patience.cancel()
            self._tell(f"{self._broker} does not send back what is written to {self._topic}")
        except (LastingError, ConnectionLostError, PublishRefusedError, TimeoutError) as error:
            self._tell(str(error))

    def _retain(self) -> None:
        try:
            with Connection(self._broker, client_id=self._client_id) as connection:
                connection.publish(self._topic, self._note.to_json(), retain=True).result(PATIENCE_S)
        except (LastingError, ConnectionLostError, PublishRefusedError, TimeoutError) as error:
            self._tell(str(error))

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            log.warning(
                "cannot keep a note on %s (%s): an image that ends the analyzer each time will not be recognised; "
                "the broker's access list must let it read and write there",
                self._topic,
                problem,
            )
