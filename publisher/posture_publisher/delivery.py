"""Which image is sent now: the one place that decides about window, repetition and pauses.

A pure state machine: it is told what happened and what time it is, and never looks at a clock, a file or a socket.
An image is in one of two states, and leaves by `forget`: its row is committed, or it is no longer spooled.

    add -> WAITING -- next --> OUT: sent, then acknowledged by the broker -- forget --> gone
              ^                 |                                     ^ |
              +--- refused, or -+     overdue, overtaken: next sends -+-+
                   disconnected before it was acknowledged   it again

An image that was cut off again and again is under suspicion of being what ends the connections (some brokers refuse a
packet like that): it stays out and is tried less and less often, so that the others get through between.

Times are seconds of one monotonic clock. Not thread-safe.
"""

import heapq
from dataclasses import dataclass

from .spool import Entry

AT_ONCE = 4
"""How many images may be unacknowledged by the broker: each is held in memory until then."""
PAUSE_FIRST_S = 1.0
PAUSE_LAST_S = 10.0
OVERTAKEN_S = 2.0
"""How long an image may stay unconfirmed once a later one is confirmed, doubling: analyzers keep the order but for
the few that are in work at a time, and a broker whose queue is full drops an image without a word.
"""
SUSPECT_AFTER = 3
"""After how many connections in a row that ended before they acknowledged it an image is under suspicion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """An image to publish now; `number` names this one attempt, `repeated` says that a broker had it before."""

    entry: Entry
    number: int
    repeated: bool


@dataclass(slots=True, kw_only=True)
class _Image:
    entry: Entry
    times: int = 0  # how often a broker has taken it
    cut_off: int = 0  # how many attempts in a row ended with their connection
    # Of the latest attempt:
    number: int = 0
    acknowledged: bool = False
    due: float = 0.0


class Delivery:
    """The images of one Pi on their way from the spool to the table.

    Args:
        window: how many images may be out, so that what the broker queues for this Pi is bounded.
        confirm_timeout: seconds after which an image that is still unconfirmed is sent again; doubles for each image
            with every time that a broker took it, so that a stream without an analyzer does not fill the broker.
        reconnect_timeout: the same, counted from a new connection: a broker that was killed comes back with an old
            queue and says nothing. Doubles as well, up to `confirm_timeout`.
    """

    def __init__(self, *, window: int, confirm_timeout: float, reconnect_timeout: float) -> None:
        self._window = window
        self._confirm_timeout = confirm_timeout
        self._reconnect_timeout = reconnect_timeout
        self._waiting: dict[str, _Image] = {}
        self._order: list[tuple[int, str]] = []  # heap of the waiting; may name images that no longer wait
        self._out: dict[str, _Image] = {}
        self._attempts: dict[int, _Image] = {}  # unanswered
        self._last_number = 0
        self._connected = False
        self._pause = 0.0
        self._paused_until = 0.0

    @property
    def connected(self) -> bool:
        """Whether the last we heard was `connect`."""
        return self._connected

    @property
    def waiting(self) -> int:
        """How many images are not out."""
        return len(self._waiting)

    @property
    def out(self) -> int:
        """How many images were sent and are not confirmed."""
        return len(self._out)

    def add(self, entry: Entry) -> None:
        """Take charge of a spooled image; one that is known already stays as it is."""
        if entry.image_id not in self._out and entry.image_id not in self._waiting:
            self._wait(_Image(entry=entry))

    def confirmed(self, image_id: str, now: float) -> None:
        """The image's row is committed, so those that a broker took before it are to be heard of soon."""
        confirmed = self._out.get(image_id)
        self.forget(image_id)
        if confirmed is None or confirmed.times > 1:  # which of the attempts was confirmed is not known
            return
        for image in self._out.values():
            if image.acknowledged and image.number < confirmed.number:
                image.due = min(image.due, now + OVERTAKEN_S * 2.0 ** (image.times - 1))

    def forget(self, image_id: str) -> None:
        """Give an image up: it is confirmed, or no longer in the spool."""
        self._waiting.pop(image_id, None)
        image = self._out.pop(image_id, None)
        if image is not None:
            self._attempts.pop(image.number, None)

    def connect(self, now: float) -> None:
        """A connection was opened: what was taken before may have been lost by the broker meanwhile."""
        self._connected = True
        for image in self._out.values():
            if not image.times:
                continue
            timeout = min(self._reconnect_timeout * 2.0 ** (image.times - 1), self._confirm_timeout)
            image.due = min(image.due, now + timeout)

    def disconnect(self, now: float) -> list[Entry]:
        """The connection is gone: what the broker has not acknowledged waits again.

        Return the images that were cut off so often that they may be the cause.
        """
        self._connected = False
        suspects = []
        for image in list(self._attempts.values()):
            image.cut_off += 1
            if image.cut_off < SUSPECT_AFTER:
                self._take_back(image)
            else:
                del self._attempts[image.number]
                image.due = now + min(2.0**image.cut_off, self._confirm_timeout)
                suspects.append(image.entry)
        return suspects

    def acknowledged(self, number: int) -> None:
        """The broker has taken the attempt and passes it on."""
        image = self._attempts.pop(number, None)
        if image is not None:
            image.acknowledged = True
            image.times += 1
            image.cut_off = 0
            self._pause = 0.0

    def refused(self, number: int, now: float) -> None:
        """The attempt failed, though the image is good: send nothing for a while, then one image to try."""
        image = self._attempts.get(number)
        if image is None:
            return
        self._take_back(image)
        if now >= self._paused_until:
            self._pause = min(max(PAUSE_FIRST_S, 2 * self._pause), PAUSE_LAST_S)
            self._paused_until = now + self._pause

    def next(self, now: float) -> Send | None:
        """Return what to publish now, or None; it then counts as sent."""
        if not self._connected or now < self._paused_until:
            return None
        # An attempt that got no answer in all its time does not block the others.
        unanswered = sum(image.due > now for image in self._attempts.values())
        if unanswered >= (1 if self._pause else AT_ONCE):
            return None
        image = min(self._out.values(), key=lambda image: image.due, default=None)
        if image is None or image.due > now:
            image = self._first_waiting() if len(self._out) < self._window else None
        if image is None:
            return None
        self._attempts.pop(image.number, None)
        self._last_number += 1
        image.number = self._last_number
        image.acknowledged = False
        image.due = now + self._confirm_timeout * 2.0**image.times
        self._out[image.entry.image_id] = image
        self._attempts[image.number] = image
        return Send(entry=image.entry, number=image.number, repeated=image.times > 0)

    def wake_up(self, now: float) -> float | None:
        """Return when `next` may give something though nothing else happened, or None if it then never does."""
        if not self._connected:
            return None
        if now < self._paused_until:
            return self._paused_until
        return min((image.due for image in self._out.values() if image.due > now), default=None)

    def _wait(self, image: _Image) -> None:
        self._waiting[image.entry.image_id] = image
        heapq.heappush(self._order, (image.entry.seq, image.entry.image_id))

    def _take_back(self, image: _Image) -> None:
        del self._attempts[image.number]
        del self._out[image.entry.image_id]
        self._wait(image)

    def _first_waiting(self) -> _Image | None:
        while self._order:
            _, image_id = heapq.heappop(self._order)
            image = self._waiting.pop(image_id, None)
            if image is not None:
                return image
        return None
