"""One MQTT v5 connection: a context manager whose messages are iterated and whose loss is an exception.

A `Connection` never reconnects: whoever lost one opens the next. So an acknowledgement can never reach another
connection than the one its message came by, where it would acknowledge a newer message (packet ids start anew).
"""

import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from enum import StrEnum, auto
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from .incoming import Lanes, Room
from .packets import UnreadableError, read_publish
from .service import LastingError
from .settings import Settings

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 15
CLOSE_TIMEOUT_S = 5.0
STEADY_S = 10.0
"""A connection that lasted so long was a good one. Two clients that share an id by mistake take it from each other
sooner, and so do it ever less often.
"""
QOS_0_BYTES_MAX = 64 * 2**20
"""What messages with QoS 0 may take here until they are acknowledged. An analyzer of two workers takes 755 MB at most
without what waits, 8 unacknowledged images of 28 MB with QoS 1 take 224 MB, and its Job may take 1 GiB.
"""
NO_SUBSCRIBERS = 0x10
NOT_AUTHORIZED = 0x87
_TOLD_MAX = 1000
_TOPICS_NAMED = 10
LASTING_REFUSALS = {"Bad user name or password", "Not authorized", "Banned", "Client identifier not valid"}
_TIME_ADVICE = {
    9: "the clock of this machine must be right",
    10: "run up, which renews it; or the clock of this machine is ahead",
}
"""By OpenSSL's number for a certificate that is not valid yet, or not any more."""


class ConnectionLostError(Exception):
    """The broker could not be reached or the connection to it broke; trying again later may help."""


class PublishRefusedError(Exception):
    """The broker acknowledged a message with an error, the MQTT v5 reason `code`: it did not take it."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where the broker is and who we are there."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the broker that the settings name."""
        password = settings.mqtt_password
        return cls(
            host=settings.mqtt_host,
            port=settings.mqtt_port,
            user=settings.mqtt_user,
            password=None if password is None else password.get_secret_value(),
            ca_file=settings.mqtt_ca_file,
        )

    def __str__(self) -> str:
        return f"broker {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came; `properties` are its MQTT v5 user properties, empty from a v3.1.1 publisher."""

    topic: str
    payload: bytes
    properties: Mapping[str, str]
    acknowledge: Callable[[], object]
    """Say that the message is worked off: the broker forgets it, and with QoS 0 there is room for another. Does nothing
    once its connection is gone.
    """
    qos: int = 1
    redelivered: bool = False
    """The broker has sent it before, and it was not acknowledged."""
    problem: str | None = None
    """Why its properties were not read, where it has some: they are empty then."""


class Mishap(StrEnum):
    """What keeps a message from being passed on as it came."""

    DROPPED = auto()
    """With QoS 0: there was no room for it, or the connection was closed before it was worked off."""
    UNREADABLE = auto()
    """The packet makes no sense; it was acknowledged."""
    PROPERTIES = auto()
    """It is passed on without its properties: they are too large, or make no sense."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the connection ends without a farewell."""

    topic: str
    payload: str


class _Client(Client):
    """paho's client, which does not read messages: `packets` says why.

    Its thread would end without a word where the broker sends what paho cannot read.
    """

    on_packet: Callable[[int, bytes | bytearray], None]
    on_stumble: Callable[[Exception], None]
    heard_at: float
    """When anything came from the broker (a monotonic clock's seconds)."""

    def acknowledge(self, qos: int, packet_id: int) -> None:
        """Tell the broker to forget a message that came with QoS 1 or 2."""
        if qos == 1:
            self._send_puback(packet_id)
        else:
            self._send_pubrec(packet_id)  # paho answers what follows by itself

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        try:
            return super().loop_forever(timeout, retry_first_connection)
        except Exception as error:  # paho names no class for it
            log.exception("what the broker sent cannot be read")
            self.on_stumble(error)
            return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _sock_recv(self, bufsize: int) -> bytes:
        data = super()._sock_recv(bufsize)
        self.heard_at = time.monotonic()
        return data

    def _handle_publish(self) -> MQTTErrorCode:
        self.on_packet(self._in_packet["command"], self._in_packet["packet"])
        return MQTTErrorCode.MQTT_ERR_SUCCESS


_KEPT = ("kept",)
"""The lane of all messages that the broker keeps until they are acknowledged."""


class Connection:
    """A connection to the broker, open while its `with` block runs.

    Args:
        broker: the broker.
        client_id: MQTT client id; it names the session.
        topics: topic filters to subscribe to with QoS 1.
        session_expiry_s: how long the broker keeps the session after the connection; 0 starts and ends a clean one.
        receive_maximum: how many messages may be unacknowledged here.
        retained_again: whether the broker sends what is retained on the topics on each connection, and not only when
            the session subscribes to them for the first time.
        on_mishap: called with topic and mishap for each message that is not passed on as it came; a log line tells of
            the first of a topic. The topic of an unreadable message is empty.
        will: what the broker is to publish where we are suddenly gone.

    Raises:
        ConnectionLostError: the broker cannot be reached, or does not let us in for now.
        LastingError: the broker refuses us for good: password, access list, certificate file.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        client_id: str,
        topics: Sequence[str] = (),
        session_expiry_s: int = 0,
        receive_maximum: int = 100,
        retained_again: bool = True,
        on_mishap: Callable[[str, Mishap], object] = lambda _topic, _mishap: None,
        will: Will | None = None,
    ) -> None:
        self._broker = broker
        again = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if retained_again else SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        self._topics = [(topic, SubscribeOptions(qos=1, retainHandling=again)) for topic in topics]
        self._on_mishap = on_mishap
        self._properties = Properties(PacketTypes.CONNECT)
        self._properties.SessionExpiryInterval = session_expiry_s
        self._properties.ReceiveMaximum = receive_maximum
        self._clean = session_expiry_s == 0
        self._incoming: Lanes[Message] = Lanes()
        self._room = Room(QOS_0_BYTES_MAX)
        self._told: set[tuple[str, Mishap]] = set()
        self._published: dict[int, Future[bool]] = {}
        self._lock = threading.Lock()
        self._up = threading.Event()
        self._down = threading.Event()
        self._refused: ReasonCode | None = None
        self._lost = "the connection was closed"
        self.largest_packet: int | None = None
        """The largest packet in bytes that the broker takes, where it says so: a larger one ends the connection."""

        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.username_pw_set(broker.user, broker.password)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_packet = self._on_packet
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        client.on_stumble = lambda error: self._end(f"its message cannot be read: {error!r}")
        self._client = client

    def __enter__(self) -> Self:
        broker = self._broker
        if broker.ca_file is not None:
            try:
                self._client.tls_set(ca_certs=str(broker.ca_file))
            except OSError as error:
                raise LastingError(
                    f"cannot use {broker.ca_file} as certificate authority for {broker}: {error}"
                ) from None
        try:
            self._client.connect(
                broker.host, broker.port, KEEPALIVE_S, clean_start=self._clean, properties=self._properties
            )
        except ssl.SSLCertVerificationError as error:
            # Not for good: a Pi's clock may be years behind until the network has told it the time.
            raise ConnectionLostError(
                f"{broker} shows a certificate that is not to be trusted: {error.verify_message}; "
                + _TIME_ADVICE.get(
                    error.verify_code,
                    f"its authority must be in {broker.ca_file} (POSTURE_MQTT_CA_FILE), and its names must fit",
                )
            ) from None
        except (OSError, ValueError) as error:
            raise ConnectionLostError(f"cannot reach {broker}: {error}") from None
        self._client.heard_at = time.monotonic()
        self._client.loop_start()
        if not self._answered():
            self._close()
            raise ConnectionLostError(f"{broker} did not answer within {CONNECT_TIMEOUT_S:.0f} s")
        if self._refused is not None:
            self._close()
            reason = str(self._refused)
            if reason in LASTING_REFUSALS:
                raise LastingError(
                    f"{broker} refuses user {broker.user!r}: {reason}; check the password and the broker's access list"
                )
            raise ConnectionLostError(f"{broker} refuses the connection: {reason}")
        if self._down.is_set():
            self._close()
            raise ConnectionLostError(f"{broker}: {self._lost}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _answered(self) -> bool:
        """Wait until the connection is up or refused; False where the broker is silent for too long.

        Before it answers to the subscription it may send all that waits in the session.
        """
        while (patience := self._client.heard_at + CONNECT_TIMEOUT_S - time.monotonic()) > 0:
            if self._up.wait(patience):
                return True
        return self._up.is_set()

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._down.is_set()

    def interrupt(self) -> None:
        """End the iteration over `batches`; the connection stays open for acknowledgements.

        What has come with QoS 0 and was not taken is lost.
        """
        self._incoming.end(only=_KEPT)

    def batches(self, limit: int) -> Iterator[list[Message]]:
        """Yield what has come, at least one and at most `limit` messages at a time, until `interrupt`.

        What the broker keeps until it is acknowledged comes in its order. Topics with QoS 0 and it take turns.

        Raises:
            ConnectionLostError: the connection broke.
        """
        while batch := self._incoming.take(limit):
            yield batch
        if self._down.is_set():
            raise ConnectionLostError(f"{self._broker}: {self._lost}")

    def publish(
        self, topic: str, payload: bytes | str, *, properties: Mapping[str, str] | None = None, retain: bool = False
    ) -> Future[bool]:
        """Publish with QoS 1 and return at once.

        The future is done when the broker has acknowledged: False where nobody was subscribed and the message is gone.
        It fails with `PublishRefusedError` where the broker did not take the message and with `ConnectionLostError`
        where nobody knows.
        """
        packet = Properties(PacketTypes.PUBLISH)
        if properties:
            packet.UserProperty = list(properties.items())
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=packet)
        with self._lock:
            if not self._down.is_set():
                return self._meet(info.mid)
        future: Future[bool] = Future()
        future.set_exception(ConnectionLostError(f"{self._broker}: {self._lost}"))
        return future

    def _meet(self, mid: int) -> "Future[bool]":
        """Return the future on which `publish` and the broker's answer to it meet, whichever comes first.

        paho holds a lock of its own while it calls us with the answer, so `publish` cannot hold ours until it has the
        message's id.
        """
        return self._published.pop(mid, None) or self._published.setdefault(mid, Future())

    def _close(self) -> None:
        if not self._down.is_set():
            self._tell_unfinished()
        # paho holds messages back that the broker cannot take yet, and would not send them after its DISCONNECT.
        with self._lock:
            unanswered = [future for future in self._published.values() if not future.done()]
        wait(unanswered, CLOSE_TIMEOUT_S)
        # Acknowledgements are written before it.
        self._client.disconnect()
        self._down.wait(CLOSE_TIMEOUT_S)
        client = self._client
        client.loop_stop()
        # It and we hold each other: where we let go, its sockets are closed with us and not at some later time.
        client.on_connect = client.on_subscribe = client.on_publish = client.on_disconnect = None
        client.on_stumble = client.on_packet = _ignore

    def _on_connect(
        self, client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self.largest_packet = getattr(properties, "MaximumPacketSize", None)
        if reason.is_failure:
            self._refused = reason
            self._up.set()
        elif self._topics:
            client.subscribe(self._topics)
        else:
            self._up.set()

    def _on_subscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._refused = next((reason for reason in reasons if reason.is_failure), None)
        self._up.set()

    def _on_packet(self, first: int, packet: bytes | bytearray) -> None:
        client = self._client
        try:
            said = read_publish(first, packet)
        except UnreadableError as error:
            if error.packet_id is None:
                raise
            # It would come again on each connection.
            client.acknowledge(error.qos, error.packet_id)
            self._mishap("", Mishap.UNREADABLE, f"{error}; it is acknowledged and ignored")
            return
        # It holds ids alone: acknowledgements live on in whoever has them, long after the payload is of no use.
        acknowledge = partial(client.acknowledge, said.qos, said.packet_id)
        if said.qos == 0:
            ticket = self._room.enter(said.topic, said.weight)
            if ticket is None:
                self._mishap(
                    said.topic,
                    Mishap.DROPPED,
                    f"messages on {said.topic} come with QoS 0 and faster than they are worked off: those that find no "
                    "room are dropped and counted; publish with QoS 1, and the broker keeps them",
                )
                return
            acknowledge = partial(self._room.leave, ticket)
        if said.problem is not None:
            self._mishap(
                said.topic, Mishap.PROPERTIES, f"a message on {said.topic} is taken without properties: {said.problem}"
            )
        self._incoming.put(
            said.topic if said.qos == 0 else _KEPT,
            Message(said.topic, said.payload, said.properties, acknowledge, said.qos, said.redelivered, said.problem),
        )

    def _mishap(self, topic: str, mishap: Mishap, words: str) -> None:
        if (topic, mishap) not in self._told and len(self._told) < _TOLD_MAX:
            self._told.add((topic, mishap))
            log.warning("%s", words)
        self._on_mishap(topic, mishap)

    def _tell_unfinished(self) -> None:
        """Tell and count what came with QoS 0 and is not worked off: nobody else has it."""
        unfinished = self._room.inside
        if unfinished:
            topics = ", ".join(f"{count} on {topic}" for topic, count in unfinished.most_common(_TOPICS_NAMED))
            log.warning("%d messages with QoS 0 are lost, not worked off yet: %s", unfinished.total(), topics)
        for topic in unfinished.elements():
            self._on_mishap(topic, Mishap.DROPPED)

    def _on_publish(
        self, _client: Client, _userdata: Any, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        with self._lock:
            future = self._meet(mid)
        if reason.is_failure:
            message = f"{self._broker} did not take the message: {reason}"
            future.set_exception(PublishRefusedError(message, code=reason.value))
        else:
            future.set_result(reason.value != NO_SUBSCRIBERS)

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._end(f"connection lost: {reason}")

    def _end(self, reason: str) -> None:
        self._lost = reason
        with self._lock:
            self._down.set()
            unanswered = [future for future in self._published.values() if not future.done()]
            self._published.clear()
        for future in unanswered:
            future.set_exception(ConnectionLostError(f"{self._broker}: {self._lost}"))
        self._up.set()
        self._incoming.end()


def _ignore(*_: object) -> None:
    pass


def broker_version(broker: Broker, *, client_id: str, patience_s: float = 1.0) -> tuple[int, ...] | None:
    """Return mosquitto's version as numbers, e.g. (2, 0, 11), or None where the broker does not tell us.

    Raises:
        ConnectionLostError: the broker cannot be reached.
    """
    try:
        with Connection(broker, client_id=client_id, topics=["$SYS/broker/version"]) as connection:
            patience = threading.Timer(patience_s, connection.interrupt)
            patience.start()
            try:
                for batch in connection.batches(1):
                    numbers = re.search(rb"(\d+)\.(\d+)\.(\d+)", batch[0].payload)
                    return tuple(map(int, numbers.groups())) if numbers else None
            finally:
                patience.cancel()
    except LastingError:
        # Perhaps only $SYS is not for us; if it is more than that, the next connection says so.
        return None
    return None
