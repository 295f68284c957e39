"""The broker's side: keeps a connection, publishes what is due, and frees what the results confirm."""

import base64
import json
import logging
import threading
from typing import TYPE_CHECKING, Literal

from posture_common.mqtt import Broker, Connection, ConnectionLostError, Message, PublishRefusedError
from posture_common.service import LastingError, Stop

from . import metrics
from .backoff import Backoff
from .delivery import Send
from .outbox import Outbox
from .spool import DamagedError, Entry

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger(__name__)

SESSION_S = 600
"""The broker keeps the results for a Pi that is away for so long: after a short outage nothing needs repeating."""
_NOT_AUTHORIZED = 0x87
_PACKET_TOO_LARGE = 0x95
_PROPERTIES_BYTES = 1024  # topic and properties of an image take less
_RESULT_BYTES = 64 * 1024  # a result takes less than a hundredth


class Uplink:
    """Publishes the outbox of one Pi until the stop.

    Args:
        outbox: what is sent.
        broker: where to.
        pi_id: whose images they are; also the client id.
        encoding: how the payload is written.
        stop: ends `run`.
    """

    def __init__(
        self, outbox: Outbox, broker: Broker, *, pi_id: str, encoding: Literal["base64", "raw"], stop: Stop
    ) -> None:
        self._outbox = outbox
        self._broker = broker
        self._pi_id = pi_id
        self._encode = base64.b64encode if encoding == "base64" else bytes
        self._stop = stop
        self._failure: Exception | None = None
        self._connecting = Backoff(log)
        self._publishing = Backoff(log)
        self._unheard = Backoff(log)  # not a problem of ours: the analyzer may be about to start

    @property
    def problem(self) -> str | None:
        """What is wrong now: with the connection, or with our right to publish."""
        connecting = None
        if not self._outbox.connected:
            connecting = self._connecting.problem or f"not yet connected to {self._broker}"
        return "; ".join(filter(None, [self._publishing.problem, connecting])) or None

    def run(self) -> None:
        """Keep a connection until the stop; raises LastingError where the broker never let us in."""
        ever = False
        while not self._stop.requested:
            try:
                with open_connection(self._broker, self._pi_id) as connection:
                    log.info("connected to %s", self._broker)
                    metrics.CONNECTIONS.inc()
                    ever = True
                    self._connecting.problem = None  # its pause only ends when the broker has taken an image
                    self._serve(connection)
            except ConnectionLostError as error:
                problem = str(error)
            except LastingError as error:
                if not ever:
                    raise
                problem = str(error)  # the broker was set up anew: the pictures go on, and so do we when it is right
            else:
                continue
            self._stop.wait(self._connecting.failed(problem))

    def _serve(self, connection: Connection) -> None:
        """Send, and hear results, until the connection is lost (ConnectionLostError) or the stop."""
        sender = threading.Thread(target=self._send_all, args=(connection,), name="sender", daemon=True)
        self._outbox.connect()
        sender.start()
        try:
            with self._stop.calling(connection.interrupt):
                for results in connection.batches(100):
                    for result in results:
                        self._hear(result)
        finally:
            suspects = self._outbox.disconnect()
            sender.join()
            for entry in suspects:
                log.warning(
                    "several connections in a row ended before image %s of %d bytes was taken: it is tried again, less "
                    "and less often; check what size of message the broker takes",
                    entry.image_id,
                    entry.size,
                )
        if self._failure is not None:
            raise self._failure

    def _hear(self, result: Message) -> None:
        image_id = _image_id(result.payload)
        if image_id is None:
            log.warning(
                "a result of %d bytes on %s does not name an image and is ignored", len(result.payload), result.topic
            )
        else:
            self._outbox.confirmed(image_id)
        result.acknowledge()

    def _send_all(self, connection: Connection) -> None:
        try:
            while (send := self._outbox.next()) is not None:
                self._send(connection, send)
        except Exception as error:  # raised again by `_serve`, which would not notice that nothing is sent any more
            self._failure = error
            connection.interrupt()

    def _send(self, connection: Connection, send: Send) -> None:
        entry = send.entry
        try:
            picture = self._outbox.read(entry)
        except FileNotFoundError:  # a newer picture took its room
            self._outbox.forget(entry.image_id)
            return
        except DamagedError as error:
            log.warning("%s; the image is lost", error)
            self._outbox.discard(entry.image_id, reason="damaged")
            return
        except OSError as error:
            self._publishing.failed(f"cannot read image {entry.name} from the spool: {error.strerror}")
            self._outbox.refused(send)
            return
        payload = self._encode(picture.data)
        if connection.largest_packet is not None and len(payload) + _PROPERTIES_BYTES > connection.largest_packet:
            self._too_large(entry)
            return
        if send.repeated:
            metrics.REPEATED.inc()
        properties = {
            "image_id": picture.image_id,
            "captured_at": picture.captured_at.isoformat(),
            "seq": str(entry.seq),
            "filename": picture.filename,
        }
        if picture.rotate:
            properties["rotate"] = str(picture.rotate)
        if picture.clock:
            properties["clock"] = picture.clock
        answer = connection.publish(f"images/{self._pi_id}", payload, properties=properties)
        answer.add_done_callback(lambda answer: self._answered(send, answer))

    def _answered(self, send: Send, answer: "Future[bool]") -> None:
        """Take the broker's word for an image; that the row is committed only its result says."""
        error = answer.exception()
        if isinstance(error, ConnectionLostError):
            return  # the outbox hears it from `_serve`
        if error is None and answer.result():
            metrics.PUBLISHED.inc()
            self._connecting.reset()
            if any([self._publishing.worked(), self._unheard.worked()]):
                log.info("%s takes images again", self._broker)
            self._outbox.acknowledged(send)
        elif isinstance(error, PublishRefusedError) and error.code == _PACKET_TOO_LARGE:
            self._too_large(send.entry)
        else:
            metrics.REFUSED.inc()
            self._tell_refusal(error)
            self._outbox.refused(send)

    def _tell_refusal(self, error: BaseException | None) -> None:
        topic = f"images/{self._pi_id}"
        then = "the images stay in the spool, trying again"
        if error is None:
            self._unheard.failed(
                f"nobody at {self._broker} is subscribed to {topic}: start the analyzer of stream {self._pi_id}",
                then=then,
            )
        elif isinstance(error, PublishRefusedError) and error.code == _NOT_AUTHORIZED:
            self._publishing.failed(
                f"{self._broker} does not let {self._pi_id} publish to {topic}: correct its access list", then=then
            )
        else:
            self._publishing.failed(str(error), then=then)

    def _too_large(self, entry: Entry) -> None:
        log.error(
            "image %s of %d bytes is larger than %s takes and is given up: raise the broker's max_packet_size",
            entry.image_id,
            entry.size,
            self._broker,
        )
        self._outbox.discard(entry.image_id, reason="refused")


def _image_id(payload: bytes) -> str | None:
    if len(payload) > _RESULT_BYTES:
        return None
    try:
        image_id = json.loads(payload)["image_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return image_id if isinstance(image_id, str) else None


def open_connection(broker: Broker, pi_id: str, *, session_s: int = SESSION_S) -> Connection:
    """Return the connection of a Pi, which hears its results; not yet open."""
    return Connection(broker, client_id=pi_id, topics=[f"posture/results/{pi_id}"], session_expiry_s=session_s)
