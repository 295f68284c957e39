"""One MQTT v5 connection: a context manager whose messages are iterated and whose loss is an exception.

A `Connection` never reconnects: whoever lost one opens the next. So an acknowledgement can never reach another
connection than the one its message came by, where it would acknowledge a newer message (packet ids start anew).
"""

import logging
import queue
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

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
NO_SUBSCRIBERS = 0x10
NOT_AUTHORIZED = 0x87
LASTING_REFUSALS = {"Bad user name or password", "Not authorized", "Banned", "Client identifier not valid"}


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
    redelivered: bool
    """The broker sent it on an earlier connection too, and heard no acknowledgement."""
    acknowledge: Callable[[], object]
    """Tell the broker to forget the message; does nothing once its connection is gone."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the connection ends without a farewell."""

    topic: str
    payload: str


class _Client(Client):
    """paho's client, whose thread would end without a word where the broker sends what paho cannot read."""

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        try:
            return super().loop_forever(timeout, retry_first_connection)
        except Exception as error:  # paho names no class for it
            log.exception("what the broker sent cannot be read")
            self.on_stumble(error)
            return MQTTErrorCode.MQTT_ERR_PROTOCOL

    on_stumble: Callable[[Exception], None]


class Connection:
    """A connection to the broker, open while its `with` block runs.

    Args:
        broker: the broker.
        client_id: MQTT client id; it names the session.
        topics: topic filters to subscribe to with QoS 1.
        session_expiry_s: how long the broker keeps the session after the connection; 0 starts and ends a clean one.
        receive_maximum: how many messages may be unacknowledged here.
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
        will: Will | None = None,
    ) -> None:
        self._broker = broker
        self._topics = list(topics)
        self._properties = Properties(PacketTypes.CONNECT)
        self._properties.SessionExpiryInterval = session_expiry_s
        self._properties.ReceiveMaximum = receive_maximum
        self._clean = session_expiry_s == 0
        # The broker bounds it: at most `receive_maximum` messages are here unacknowledged.
        self._incoming: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
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
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.username_pw_set(broker.user, broker.password)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
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
                f"its authority must be in {broker.ca_file} (POSTURE_MQTT_CA_FILE), and its names must fit"
            ) from None
        except (OSError, ValueError) as error:
            raise ConnectionLostError(f"cannot reach {broker}: {error}") from None
        self._client.loop_start()
        if not self._up.wait(CONNECT_TIMEOUT_S):
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

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._down.is_set()

    def interrupt(self) -> None:
        """End the iteration over `batches`; the connection stays open for acknowledgements."""
        self._incoming.put(None)

    def batches(self, limit: int) -> Iterator[list[Message]]:
        """Yield what has come, at least one and at most `limit` messages at a time, until `interrupt`.

        Raises:
            ConnectionLostError: the connection broke.
        """
        while True:
            batch = []
            message = self._incoming.get()
            with suppress(queue.Empty):
                while message is not None:
                    batch.append(message)
                    if len(batch) == limit:
                        break
                    message = self._incoming.get_nowait()
            if batch:
                yield batch
            if message is None:
                if self._down.is_set():
                    raise ConnectionLostError(f"{self._broker}: {self._lost}")
                return

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
        client.on_connect = client.on_subscribe = client.on_message = client.on_publish = client.on_disconnect = None
        client.on_stumble = _ignore

    def _on_connect(
        self, client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self.largest_packet = getattr(properties, "MaximumPacketSize", None)
        if reason.is_failure:
            self._refused = reason
            self._up.set()
        elif self._topics:
            client.subscribe([(topic, 1) for topic in self._topics])
        else:
            self._up.set()

    def _on_subscribe(
        self, _client: Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._refused = next((reason for reason in reasons if reason.is_failure), None)
        self._up.set()

    def _on_message(self, client: Client, _userdata: Any, message: MQTTMessage) -> None:
        properties = getattr(message.properties, "UserProperty", [])

        # It holds the ids alone: acknowledgements live on in whoever has them, long after the payload is of no use.
        acknowledge = partial(client.ack, message.mid, message.qos)
        self._incoming.put(Message(message.topic, bytes(message.payload), dict(properties), message.dup, acknowledge))

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
        self._incoming.put(None)


def _ignore(_error: Exception) -> None:
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
