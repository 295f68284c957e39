"""The images between camera and broker: what lies in the spool, and what the delivery makes of it, kept in step."""

import logging
import threading
import time

from . import metrics
from .delivery import Delivery, Send
from .spool import Entry, Picture, Spool, SpoolFullError

log = logging.getLogger(__name__)


class Outbox:
    """A spool and its delivery, for several threads: one puts, one sends, any may report what the broker answers.

    The delivery is guarded by one condition, notified whenever the sender may have something to do. Nothing is queued
    here: what waits lies in the spool.
    """

    def __init__(self, spool: Spool, delivery: Delivery) -> None:
        self._spool = spool
        self._delivery = delivery
        self._changed = threading.Condition()
        for entry in spool.entries():
            delivery.add(entry)
        metrics.SPOOLED_IMAGES.set_function(lambda: len(spool))
        metrics.SPOOLED_BYTES.set_function(lambda: spool.bytes)
        metrics.OUT_IMAGES.set_function(lambda: delivery.out)
        metrics.CONNECTED.set_function(lambda: delivery.connected)
        metrics.OLDEST_SECONDS.set_function(self._oldest_age)

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the broker."""
        return self._delivery.connected

    def put(self, picture: Picture) -> None:
        """Spool a picture and have it sent; raises what `Spool.put` raises."""
        entry = self._spool.put(picture)
        with self._changed:
            self._delivery.add(entry)
            self._changed.notify_all()

    def put_in_place_of_oldest(self, picture: Picture) -> SpoolFullError | None:
        """The same, giving up the oldest images where there is no room; return why any were, None where none was.

        Raises:
            OSError: the disk takes no picture or frees none.
        """
        why = None
        while True:
            try:
                self.put(picture)
            except SpoolFullError as error:
                oldest = self._spool.oldest()
                if oldest is None:
                    raise
                self._spool.remove(oldest.image_id)
                self.forget(oldest.image_id)
                metrics.DROPPED.labels(reason="spool_full").inc()
                why = error
            else:
                return why

    def read(self, entry: Entry) -> Picture:
        """Return a spooled picture; raises what `Spool.read` raises."""
        return self._spool.read(entry)

    def confirmed(self, image_id: str) -> None:
        """The image's row is committed: free it."""
        with self._changed:
            self._delivery.confirmed(image_id, time.monotonic())
        if self._remove(image_id):
            metrics.CONFIRMED.inc()

    def discard(self, image_id: str, *, reason: str) -> None:
        """Give an image up: it cannot be delivered."""
        if self._remove(image_id):
            metrics.DROPPED.labels(reason=reason).inc()

    def _remove(self, image_id: str) -> bool:
        try:
            return self._spool.remove(image_id)
        except OSError as error:  # after the next start it is sent once more
            log.warning("cannot remove image %s from the spool: %s", image_id, error.strerror)
            return False
        finally:
            self.forget(image_id)

    def forget(self, image_id: str) -> None:
        """Do not send an image any more."""
        with self._changed:
            self._delivery.forget(image_id)
            self._changed.notify_all()

    def connect(self) -> None:
        """A connection to the broker is open."""
        with self._changed:
            self._delivery.connect(time.monotonic())
            self._changed.notify_all()

    def disconnect(self) -> list[Entry]:
        """The connection is gone; `next` returns. Return what `Delivery.disconnect` does."""
        with self._changed:
            suspects = self._delivery.disconnect(time.monotonic())
            self._changed.notify_all()
        return suspects

    def acknowledged(self, send: Send) -> None:
        """The broker took it."""
        with self._changed:
            self._delivery.acknowledged(send.number)
            self._changed.notify_all()

    def refused(self, send: Send) -> None:
        """It could not be sent, through no fault of its own."""
        with self._changed:
            self._delivery.refused(send.number, time.monotonic())
            self._changed.notify_all()

    def next(self) -> Send | None:
        """Wait until there is something to send and return it, or None when the connection is gone."""
        with self._changed:
            while self._delivery.connected:
                now = time.monotonic()
                send = self._delivery.next(now)
                if send is not None:
                    return send
                wake_up = self._delivery.wake_up(now)
                self._changed.wait(None if wake_up is None else wake_up - now)
        return None

    def _oldest_age(self) -> float:
        oldest = self._spool.oldest()
        return 0.0 if oldest is None else max(0.0, time.time() - oldest.since)
