"""What has come by a connection and was not taken yet: in turn, and bounded. Neither network nor broker.

Of messages that a broker keeps until they are acknowledged (QoS 1 and 2) it sends no more than the receive maximum.
With QoS 0 it sends what comes, as fast as it comes, and forgets it: `Room` bounds those.
"""

import itertools
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Room:
    """The bytes that messages with QoS 0 may take until they are worked off.

    No topic may take more than is free: one fast camera leaves half of the room to others.

    Args:
        size: the room in bytes; an empty one takes any message.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._tickets = itertools.count()
        self._inside: dict[int, tuple[str, int]] = {}
        self._bytes: Counter[str] = Counter()
        self._taken = 0

    def enter(self, topic: str, size: int) -> int | None:
        """Return a ticket for a message that takes `size` bytes, or None where there is no room for it."""
        with self._lock:
            if self._taken and self._bytes[topic] + size > self._size - self._taken:
                return None
            ticket = next(self._tickets)
            self._inside[ticket] = topic, size
            self._bytes[topic] += size
            self._taken += size
            return ticket

    def leave(self, ticket: int) -> None:
        """Give the room of a message back; does nothing the second time."""
        with self._lock:
            topic, size = self._inside.pop(ticket, (None, 0))
            if topic is not None:
                self._bytes[topic] -= size
                self._taken -= size
                if not self._bytes[topic]:
                    del self._bytes[topic]

    @property
    def inside(self) -> Counter[str]:
        """How many messages are inside, by topic."""
        with self._lock:
            return Counter(topic for topic, _ in self._inside.values())


class Lanes(Generic[T]):
    """A queue of several lanes that are served in turn, so that a long one holds no other up."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lanes: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._ended = False

    def put(self, lane: Hashable, item: T) -> None:
        """Append to a lane; what comes after the end is not taken."""
        with self._changed:
            if not self._ended:
                self._lanes.setdefault(lane, deque()).append(item)
                self._changed.notify_all()

    def end(self, *, only: Hashable | None = None) -> None:
        """Let `take` end after what is there, or after what is there in the lane `only`."""
        with self._changed:
            self._ended = True
            if only is not None:
                for lane in [lane for lane in self._lanes if lane != only]:
                    del self._lanes[lane]
            self._changed.notify_all()

    def take(self, limit: int) -> list[T]:
        """Wait for items and return all there are, at most `limit`; empty at the end."""
        taken: list[T] = []
        with self._changed:
            self._changed.wait_for(lambda: self._lanes or self._ended)
            while self._lanes and len(taken) < limit:
                lane, items = self._lanes.popitem(last=False)
                taken.append(items.popleft())
                if items:
                    self._lanes[lane] = items
        return taken
