"""A PUBLISH packet of MQTT v5, read in linear time whatever a publisher put into it. Pure.

paho reads properties in a time that grows with their number times the size of the packet, and gives the connection up
for what it does not like in them: one such message, which the broker sends again on each connection, would keep its
subscriber away for good.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PROPERTIES_BYTES_MAX = 8192
"""More than eight times what the longest file name and all else that we read from them takes."""
_WEIGHT = 1024
_WEIGHT_OF_PROPERTY_BYTE = 32
"""What a message takes beside its payload, and a byte of its properties when each is a text of its own: measured."""
_USER_PROPERTY = 38
_SIZES = {1: 1, 2: 4, 35: 2}
"""Bytes of the properties that a number is: payload format, expiry, topic alias."""
_TEXTS = {3, 8, 9}
"""Content type, response topic, correlation data: their length is in front."""
_SUBSCRIPTION = 11


class UnreadableError(ValueError):
    """A packet without a topic or payload that could be told; where it has a `packet_id`, it can be acknowledged."""

    def __init__(self, message: str, *, qos: int, packet_id: int | None) -> None:
        super().__init__(message)
        self.qos = qos
        self.packet_id = packet_id


@dataclass(frozen=True, slots=True)
class Publish:
    """What a PUBLISH packet says; `packet_id` is 0 with QoS 0.

    `properties` are its user properties. Where they were not read, they are empty and `problem` says why. `weight` is
    how many bytes of memory all of it takes at most.
    """

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    redelivered: bool
    properties: Mapping[str, str]
    problem: str | None
    weight: int


def read_publish(first: int, packet: bytes | bytearray) -> Publish:
    """Return what the packet says: its first byte, and all that follows its length.

    Raises:
        UnreadableError: it is cut short, or its topic is not UTF-8.
    """
    qos = first >> 1 & 3
    packet_id = None
    try:
        at = 2 + _number(packet, 0)
        topic = bytes(packet[2:at])
        packet_id = _number(packet, at) if qos else 0
        at += 2 if qos else 0
        size, at = _variable(packet, at)
        name = topic.decode()
    except (ValueError, IndexError, struct.error) as error:
        raise UnreadableError(f"a message cannot be read: {error}", qos=qos, packet_id=packet_id) from None
    if at + size > len(packet):
        raise UnreadableError("a message ends before its properties do", qos=qos, packet_id=packet_id)
    properties: dict[str, str] = {}
    problem = None
    if size > PROPERTIES_BYTES_MAX:
        problem = f"its properties take {size} bytes, more than {PROPERTIES_BYTES_MAX}"
    else:
        try:
            properties = dict(_user_properties(bytes(packet[at : at + size])))
        except (ValueError, IndexError, struct.error) as error:
            problem = f"its properties cannot be read: {error}"
    payload = bytes(memoryview(packet)[at + size :])
    weight = _WEIGHT + 4 * len(topic) + len(payload) + (_WEIGHT_OF_PROPERTY_BYTE * size if properties else 0)
    return Publish(name, payload, qos, packet_id, bool(first & 8), properties, problem, weight)


def _user_properties(block: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(block):
        kind, at = _variable(block, at)
        if kind == _USER_PROPERTY:
            name, at = _text(block, at)
            value, at = _text(block, at)
            yield name.decode(), value.decode()
        elif kind in _TEXTS:
            _, at = _text(block, at)
        elif kind == _SUBSCRIPTION:
            _, at = _variable(block, at)
        elif kind in _SIZES:
            at += _SIZES[kind]
        else:
            raise ValueError(f"there is no property {kind}")


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + _number(block, at)
    if end > len(block):
        raise ValueError("a text is cut short")
    return block[at + 2 : end], end


def _number(packet: bytes | bytearray, at: int) -> int:
    number: int = struct.unpack_from("!H", packet, at)[0]
    return number


def _variable(packet: bytes | bytearray, at: int) -> tuple[int, int]:
    """Return a variable byte integer, which has at most four bytes, and where it ends."""
    number = 0
    for place in range(4):
        byte = packet[at + place]
        number |= (byte & 127) << (7 * place)
        if byte < 128:
            return number, at + place + 1
    raise ValueError("a number is longer than four bytes")
