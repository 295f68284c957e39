"""A stream's durable session at a broker, looked at by connecting to it."""

import queue
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.brokers import ADMIN, Broker, analyzer_user


def find_session(broker: Broker, stream: str) -> bool:
    """Connect to a stream's session and leave it, so that it is there then; return whether it was there before."""
    found: queue.Queue[bool] = queue.Queue()
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    client = Client(CallbackAPIVersion.VERSION2, f"posture-stream-{stream}", protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set(analyzer_user(stream), broker.passwords[analyzer_user(stream)])
    client.on_connect = lambda _client, _data, flags, _reason, _properties: found.put(flags.session_present)
    client.connect("127.0.0.1", broker.port, clean_start=False, properties=properties)
    client.loop_start()
    try:
        return found.get(timeout=5)
    finally:
        client.disconnect()
        client.loop_stop()


def retained(broker: Broker, topic: str) -> bytes | None:
    """Return what the broker has retained on a topic."""
    found: queue.Queue[bytes] = queue.Queue()
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set(ADMIN, broker.passwords[ADMIN])

    def on_message(_client: Client, _data: Any, message: MQTTMessage) -> None:
        found.put(bytes(message.payload) if message.retain else b"")

    def on_connect(*_: Any) -> None:
        client.subscribe([(topic, 1), ("tests/mark", 1)])

    def on_subscribe(*_: Any) -> None:
        # Messages come in order: what was retained comes before what is published after the subscription.
        client.publish("tests/mark", "mark", qos=1)

    client.on_message, client.on_connect, client.on_subscribe = on_message, on_connect, on_subscribe
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        return found.get(timeout=5) or None
    finally:
        client.disconnect()
        client.loop_stop()
