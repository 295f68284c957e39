"""How long an image may keep a decoder: less, for a while, for a Pi whose images have wasted much. Pure.

One Pi must not hold up the others of its stream. An image that goes over its limit costs the limit, so a Pi that sends
such images one after the other gets less and less for each; an ordinary picture needs a small part of the least.
"""

from collections import deque
from threading import Lock

from .sandbox import cpu_limit_s

LEAST_S = 0.5
WINDOW_S = 60.0


class Patience:
    """The processor seconds that images of each Pi may take to decode. Thread-safe."""

    def __init__(self) -> None:
        self._wasted: dict[str, deque[tuple[float, float]]] = {}
        self._lock = Lock()

    def limit_s(self, pi_id: str, *, size: int, now: float) -> float:
        """Return the limit for an encoded image of `size` bytes, at `now` seconds of a steady clock."""
        with self._lock:
            self._forget(now)
            wasted = sum(seconds for _, seconds in self._wasted.get(pi_id, ()))
        return max(LEAST_S, cpu_limit_s(size) - wasted)

    def wasted(self, pi_id: str, seconds: float, *, now: float) -> None:
        """Note that an image of the Pi took so long for nothing."""
        with self._lock:
            self._wasted.setdefault(pi_id, deque()).append((now, seconds))

    def _forget(self, now: float) -> None:
        for pi_id, times in list(self._wasted.items()):
            while times and times[0][0] < now - WINDOW_S:
                times.popleft()
            if not times:
                del self._wasted[pi_id]
