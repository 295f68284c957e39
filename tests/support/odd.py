"""Messages as no client library sends them: any properties, any payload, and none of it checked."""

from types import TracebackType
from typing import Self

from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers

from tests.support.brokers import ADMIN, Broker
from tests.support.waiting import wait_until


class Block(Properties):
    """Properties of a PUBLISH as bytes."""

    def __init__(self, block: bytes) -> None:
        super().__init__(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # it has no types
        object.__setattr__(self, "block", block)

    def pack(self) -> bytes:
        """Return the bytes after their length."""
        block: bytes = self.__dict__["block"]
        return bytes(VariableByteIntegers.encode(len(block))) + block


def pairs(count: int, size: int) -> Block:
    """Return `count` user properties with names of `size` bytes."""
    return Block(count * (b"\x26" + size.to_bytes(2) + size * b"a" + b"\0\0"))


class Stranger:
    """Somebody who may publish anything anywhere; connects again whenever the broker has had enough."""

    def __init__(self, broker: Broker, name: str = "stranger") -> None:
        self._client = client = Client(CallbackAPIVersion.VERSION2, f"test-{name}", protocol=MQTTProtocolVersion.MQTTv5)
        client.username_pw_set(ADMIN, broker.passwords[ADMIN])
        client.max_inflight_messages_set(1000)
        client.reconnect_delay_set(1, 1)
        self._port = broker.port
        self._thrown: list[MQTTMessageInfo] = []

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        wait_until(self._client.is_connected, timeout=10, describe="the broker lets the stranger in")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def throw(self, topic: str, payload: bytes, *, properties: Properties, qos: int, retain: bool) -> None:
        """Publish and return at once."""
        self._thrown.append(self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties))

    def wait(self) -> None:
        """Wait until everything thrown is with the broker."""
        for info in self._thrown:
            info.wait_for_publish(60)
        self._thrown.clear()

    def send(
        self, topic: str, payload: bytes, *, properties: Properties | None = None, qos: int = 1, retain: bool = False
    ) -> None:
        """Publish and return when it is sent, with QoS 1 and 2 when the broker has it."""
        info = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        info.wait_for_publish(30)
        if not info.is_published():
            raise RuntimeError(f"the broker did not take a message on {topic} within 30 s")
