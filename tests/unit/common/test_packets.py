"""PUBLISH packets, as brokers send them and as nobody should."""

import time
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt._packet import decode_publish
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from posture_common.packets import PROPERTIES_BYTES_MAX, UnreadableError, read_publish

QOS_1 = 0x32


def packed(*pairs: tuple[str, str], **others: object) -> bytes:
    """Return a property block with its length, as paho writes it."""
    properties = Properties(PacketTypes.PUBLISH)
    if pairs:
        properties.UserProperty = list(pairs)
    for name, value in others.items():
        setattr(properties, name, value)
    return bytes(properties.pack())


def publish(block: bytes = b"\0", *, topic: bytes = b"images/pi1", qos: int = 1, payload: bytes = b"x") -> bytes:
    packet_id = b"\0\x07" if qos else b""
    return len(topic).to_bytes(2) + topic + packet_id + block + payload


def test_all_that_a_packet_says_is_read() -> None:
    block = packed(
        ("seq", "1"),
        ("filename", "Müller \ufeff 照片.jpg"),
        ("seq", "2"),
        PayloadFormatIndicator=1,
        MessageExpiryInterval=60,
        ContentType="image/jpeg",
        ResponseTopic="a",
        CorrelationData=b"\0\xff",
        SubscriptionIdentifier=300,
        TopicAlias=7,
    )
    said = read_publish(QOS_1 | 8, bytearray(publish(block, payload=b"\xff\xd8\0")))
    assert (said.topic, said.payload, said.qos, said.packet_id) == ("images/pi1", b"\xff\xd8\0", 1, 7)
    assert said.redelivered
    assert said.properties == {"seq": "2", "filename": "Müller \ufeff 照片.jpg"}
    assert said.problem is None


def test_with_qos_0_there_is_no_packet_id() -> None:
    said = read_publish(0x30, publish(packed(("seq", "1")), qos=0))
    assert (said.qos, said.packet_id, said.redelivered, said.properties) == (0, 0, False, {"seq": "1"})


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=30)


@given(
    pairs=st.lists(st.tuples(text, text), max_size=20), payload=st.binary(), first=st.sampled_from([0x30, 0x32, 0x3A])
)
def test_what_paho_reads_is_read_the_same(pairs: list[tuple[str, str]], payload: bytes, first: int) -> None:
    packet = publish(packed(*pairs), qos=first >> 1 & 3, payload=payload)
    said, other = read_publish(first, packet), decode_publish(first, packet, MQTTProtocolVersion.MQTTv5)
    assert said.properties == dict(getattr(other.properties, "UserProperty", []))
    assert (said.topic.encode(), said.payload, said.packet_id, said.redelivered) == (
        other.topic,
        other.payload,
        other.mid,
        other.dup,
    )


@given(first=st.integers(0x30, 0x3F), packet=st.binary())
def test_any_bytes_are_read_or_refused(first: int, packet: bytes) -> None:
    with suppress(UnreadableError):
        read_publish(first, packet)


@given(st.binary(max_size=200))
def test_a_block_of_any_bytes_costs_the_properties_alone(block: bytes) -> None:
    said = read_publish(QOS_1, publish(len(block).to_bytes(1) + b"\1" * (len(block) > 127) + block))
    assert said.packet_id == 7
    assert said.payload.endswith(b"x")


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"\1\x7f", "there is no property 127"),
        (b"\3\x26\0\5", "cannot be read"),
        (b"\6\x26\0\1\xff\0\0", "utf-8"),
        (b"\3\3\0\5", "cut short"),
    ],
)
def test_a_senseless_block_is_told(block: bytes, words: str) -> None:
    said = read_publish(QOS_1, publish(block))
    assert said.properties == {}
    assert words in (said.problem or "")
    assert said.payload == b"x"


@pytest.mark.parametrize("size", [1, 60_000])
def test_properties_beyond_the_limit_are_not_read(size: int) -> None:
    block = packed(*(PROPERTIES_BYTES_MAX // size + 1) * [("a" * size, "")])
    said = read_publish(QOS_1, publish(block))
    assert said.properties == {}
    assert f"more than {PROPERTIES_BYTES_MAX}" in (said.problem or "")
    assert said.payload == b"x"


def test_many_properties_before_a_large_image_take_no_time() -> None:
    block = packed(*1600 * [("", "")])
    packet = bytearray(publish(block, payload=bytes(28_000_000)))
    began = time.process_time()
    said = read_publish(QOS_1, packet)
    assert time.process_time() - began < 1, "paho takes minutes"
    assert said.properties == {"": ""}


@pytest.mark.parametrize(
    "packet",
    [
        publish(payload=b""),
        publish(payload=bytes(100_000)),
        publish(packed(*((f"{number:x}", "") for number in range(1000)))),
        publish(packed(*((f"{number:03}", "é") for number in range(800)))),
        publish(packed(("filename", "\U0001f600" * 2000))),
        publish(topic="\U0001f600".encode() * 16_000),
        publish(packed(*3000 * [("a", "")])),
    ],
    ids=["empty", "payload", "names", "names and values", "wide", "topic", "too many"],
)
def test_its_weight_is_what_it_takes_at_most(packet: bytes) -> None:
    tracemalloc.start()
    said = [read_publish(QOS_1, packet) for _ in range(20)]
    taken = tracemalloc.get_traced_memory()[0] / 20
    tracemalloc.stop()
    assert taken < said[0].weight
    assert said[0].weight < 40 * len(packet) + 2048


@pytest.mark.parametrize(
    ("packet", "packet_id"),
    [
        (publish(topic=b"images/\xff"), 7),
        (publish(b"\xff\xff\xff\xff\xff"), 7),
        (publish(b"\xff\xff\x01", payload=b""), 7),
        (publish(payload=b"")[:-1], 7),
        (publish()[:11], None),
        (b"\xff\xffimages", None),
        (b"", None),
    ],
    ids=["topic", "length of five bytes", "length beyond the end", "no length", "no id", "topic cut", "empty"],
)
def test_what_cannot_be_told_apart_has_its_id_where_it_can(packet: bytes, packet_id: int | None) -> None:
    with pytest.raises(UnreadableError) as refused:
        read_publish(QOS_1, packet)
    assert (refused.value.packet_id, refused.value.qos) == (packet_id, 1)
