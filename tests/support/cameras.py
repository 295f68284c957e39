"""Cameras that only publish, an ear for the results, and the session that a stream's images wait in."""

import base64
import json
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.support.brokers import ADMIN, Broker, analyzer_user
from tests.support.images import Shot
from tests.support.waiting import wait_until

_SESSION_S = 30 * 24 * 3600


class Camera:
    """A connected publisher without a spool.

    With `v5` each image carries its properties; without, it is bare base64 by MQTT 3.1.1, as the lab's cameras send it.
    `user` is the Pi itself on the Pis' listener, or ADMIN on the other one, who may publish anywhere.
    """

    def __init__(
        self, broker: Broker, pi_id: str, *, user: str | None = None, v5: bool = True, client_id: str | None = None
    ) -> None:
        self._v5 = v5
        self._topic = f"images/{pi_id}"
        self._refusals: list[str] = []
        user = user or pi_id
        version = MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311
        self._client = client = Client(
            CallbackAPIVersion.VERSION2,
            client_id or f"camera-{user}-{pi_id}",
            protocol=version,
            reconnect_on_failure=False,
        )
        client.username_pw_set(user, broker.passwords[user])
        client.max_inflight_messages_set(100)
        client.on_publish = self._on_publish
        self._port = broker.port if user == ADMIN else broker.pi_port

    def __enter__(self) -> Self:
        _connect(self._client, self._port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _disconnect(self._client)

    def send(self, shots: Iterable[Shot], *, raw: bool = False, topic: str | None = None, timeout: float = 60) -> None:
        """Publish the shots and return when the broker has taken all; raises RuntimeError where it refuses one."""
        infos = []
        for seq, shot in enumerate(shots):
            properties = _properties(shot, seq) if self._v5 else None
            payload = shot.data if raw else base64.b64encode(shot.data)
            infos.append(self._client.publish(topic or self._topic, payload, qos=1, properties=properties))
        for info in infos:
            info.wait_for_publish(timeout)
            if not info.is_published():
                raise RuntimeError(f"the broker did not take an image for {topic or self._topic} within {timeout} s")
        if self._refusals:
            raise RuntimeError(f"the broker refuses images for {topic or self._topic}: {self._refusals[0]}")

    def _on_publish(self, _client: Client, _userdata: Any, _mid: int, reason: ReasonCode, *_: Any) -> None:
        if reason.is_failure:
            self._refusals.append(str(reason))


class Results:
    """Collects every result message while the block runs; `on_result` is called with each at once."""

    def __init__(self, broker: Broker, *, on_result: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self._port = broker.port
        self._subscribed = threading.Event()
        self._on_result = on_result
        self._client = client = Client(
            CallbackAPIVersion.VERSION2, client_id="test-results", protocol=MQTTProtocolVersion.MQTTv5
        )
        client.username_pw_set(ADMIN, broker.passwords[ADMIN])
        client.on_message = self._on_message
        client.on_subscribe = lambda *_: self._subscribed.set()

    def __enter__(self) -> Self:
        _connect(self._client, self._port)
        self._client.on_connect = self._subscribe  # after a broker's restart paho connects again
        self._subscribe()
        assert self._subscribed.wait(10), "the broker did not confirm the subscription to the results"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _disconnect(self._client)

    def of(self, image_id: str) -> list[dict[str, Any]]:
        """Return the results of one image, oldest first."""
        return [result for _, result in self.messages if result["image_id"] == image_id]

    def _subscribe(self, *_: Any) -> None:
        self._client.subscribe("posture/results/#", qos=1)

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        result = json.loads(message.payload)
        if self._on_result:
            self._on_result(result)
        self.messages.append((message.topic, result))


def _properties(shot: Shot, seq: int) -> Properties:
    captured_at = shot.captured_at if isinstance(shot.captured_at, str) else shot.captured_at.isoformat()
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = [
        ("image_id", shot.image_id),
        ("captured_at", captured_at),
        ("seq", str(seq)),
        ("filename", shot.filename),
    ]
    return properties


def open_session(broker: Broker, stream: str) -> None:
    """Make the stream's session at the broker, so that images queue in it before its analyzer ever ran."""
    client = _stream_client(broker, stream)
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    _connect(client, broker.port, keep=True)
    client.subscribe("images/+" if stream == "all" else f"images/{stream}", qos=1)
    assert subscribed.wait(10), f"the broker did not confirm stream {stream}'s subscription"
    _disconnect(client)


def left_in_session(broker: Broker, stream: str, *, quiet_s: float = 0.5) -> int:
    """Return how many images still wait in the stream's session, and empty it: nothing may own it meanwhile."""
    client = _stream_client(broker, stream)
    count = 0
    last = threading.Event()

    def on_message(_client: Client, _userdata: Any, message: MQTTMessage) -> None:
        nonlocal count
        count += 1
        last.set()

    client.on_message = on_message
    _connect(client, broker.port, keep=True)
    while last.wait(quiet_s):
        last.clear()
    _disconnect(client)
    return count


def _stream_client(broker: Broker, stream: str) -> Client:
    client = Client(
        CallbackAPIVersion.VERSION2, client_id=f"posture-stream-{stream}", protocol=MQTTProtocolVersion.MQTTv5
    )
    client.username_pw_set(analyzer_user(stream), broker.passwords[analyzer_user(stream)])
    return client


def _connect(client: Client, port: int, *, keep: bool = False) -> None:
    """Connect and return when the broker has let the client in; `keep` takes up its session and leaves it there."""
    outcome: list[str] = []

    def on_connect(_client: Client, _userdata: Any, _flags: ConnectFlags, reason: ReasonCode, *_: Any) -> None:
        outcome.append(str(reason) if reason.is_failure else "")

    client.on_connect = on_connect
    if keep:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = _SESSION_S
        client.connect("127.0.0.1", port, clean_start=False, properties=properties)
    else:
        client.connect("127.0.0.1", port)
    client.loop_start()
    wait_until(lambda: outcome, timeout=10, describe=f"the broker on {port} lets {client.username} in")
    if outcome[0]:
        client.loop_stop()
        raise PermissionError(f"the broker on {port} refuses: {outcome[0]}")


def _disconnect(client: Client) -> None:
    gone = threading.Event()
    client.on_disconnect = lambda *_: gone.set()
    if client.disconnect() == MQTTErrorCode.MQTT_ERR_SUCCESS:
        gone.wait(5)
    client.loop_stop()
