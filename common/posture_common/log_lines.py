"""Bounds the log: a few lines of each kind a minute, then how many more there were.

A Pi can have hundreds of messages a second refused, and each is a line; so can a server that answers oddly. Lines of
one kind come from one place of the program, whatever they name. The first `LINES` of a minute are shown, each with its
objects; those after them become one line that counts them and shows the last. Lines about cameras are counted for each
camera (`extra=about(pi_id)`), so that one camera cannot hide what there is to say of another.
"""

import atexit
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

LINES = 200
WINDOW_S = 60.0
MOST_KINDS = 1000


@dataclass(slots=True)
class _Kind:
    """The lines of one place in the current minute."""

    began: float
    shown: int = 0
    held: int = 0
    last: logging.LogRecord | None = None


def about(camera: str) -> dict[str, str]:
    """Return what a log call takes as `extra` to say which camera its line is about."""
    return {"camera": camera}


class Collapsing(logging.Filter):
    """Lets the first lines of each kind through and tells `emit` of the others. Thread-safe.

    Lines for debugging pass: who asks for them wants all.
    """

    def __init__(
        self, emit: Callable[[logging.LogRecord], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._emit = emit
        self._clock = clock
        self._kinds: dict[tuple[str, int, str, str], _Kind] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is shown now."""
        if record.levelno < logging.INFO:
            return True
        name = record.name, record.levelno, str(record.msg), getattr(record, "camera", "")
        now = self._clock()
        with self._lock:
            ended = self._end(until=now - WINDOW_S)
            if name not in self._kinds and len(self._kinds) == MOST_KINDS:
                ended += self._end(until=min(kind.began for kind in self._kinds.values()))
            kind = self._kinds.setdefault(name, _Kind(began=now))
            shown = kind.shown < LINES
            if shown:
                kind.shown += 1
            else:
                kind.held, kind.last = kind.held + 1, record
                self._wake()
        for summary in ended:
            self._emit(summary)
        return shown

    def flush(self) -> None:
        """Tell of all lines that were held back."""
        with self._lock:
            ended = self._end(until=self._clock())
        for summary in ended:
            self._emit(summary)

    def _end(self, *, until: float) -> list[logging.LogRecord]:
        """Forget the minutes that began so early; return what there is to say of them."""
        over = [name for name, kind in self._kinds.items() if kind.began <= until]
        kinds = [self._kinds.pop(name) for name in over]
        return [_summary(kind.last, kind.held) for kind in kinds if kind.last is not None]

    def _wake(self) -> None:
        """See to it that the count is told although no further line comes."""
        if self._timer is None:
            self._timer = threading.Timer(WINDOW_S, self._tell)
            self._timer.daemon = True
            self._timer.start()

    def _tell(self) -> None:
        with self._lock:
            self._timer = None
        self.flush()


def collapse(handler: logging.Handler) -> None:
    """Bound what the handler writes."""

    def emit(record: logging.LogRecord) -> None:
        with handler.lock or threading.RLock():
            handler.emit(record)

    collapsing = Collapsing(emit)
    handler.addFilter(collapsing)
    atexit.register(collapsing.flush)


def _summary(last: logging.LogRecord, held: int) -> logging.LogRecord:
    """Return the line that stands for those that were held back: a single one as it was."""
    if held == 1:
        return last
    text = f"{held} more like it in the last minute, the last: {last.getMessage()}"
    return logging.LogRecord(last.name, last.levelno, last.pathname, last.lineno, text, None, None)
