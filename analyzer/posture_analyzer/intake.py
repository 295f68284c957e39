"""From a message to the work it asks for: whose image it is, its key, its bytes. Pure."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from posture_common.mqtt import Message

from . import payload
from .database import Key

log = logging.getLogger(__name__)

_TOPIC = re.compile(r"images/([A-Za-z0-9_-]{1,64})")
_LEAP_SECOND = re.compile(r"(?<=[T ]\d\d:\d\d):60")
_LONGEST_FILENAME = 255
_PLAUSIBLE_YEARS = range(1970, 3000)
"""Beyond them, some part between here and the dashboard cannot hold the time."""
_FARTHEST_AHEAD = timedelta(minutes=5)
_CLOCKS_BEGIN = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2000, 1, 1, tzinfo=UTC))
_CLOCKS_FIRST_DAYS = timedelta(days=7)
"""A clock that was never set counts from there, and a Pi is seldom up for longer without a network."""
_ROTATIONS = {"0": 0, "90": 90, "180": 180, "270": 270}


class ForeignTopicError(ValueError):
    """The message's topic is not images/<pi_id>."""


@dataclass(slots=True, kw_only=True)
class Work:
    """An image to analyse and the messages that wait for its row."""

    pi_id: str
    image_id: str
    filename: str | None
    captured_time: datetime | None
    received_time: datetime
    image: bytes
    clock_suspect: bool = False
    """The capture time cannot be, or its publisher knows that its clock is wrong."""
    rotate: int = 0
    """By how many degrees the image is to be turned clockwise."""
    redelivered: bool = False
    """The broker has sent it before, on an earlier connection."""
    problem: str | None = None
    """Why there is no image in the message."""
    acknowledgements: list[Callable[[], object]] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """What makes the image's row unique."""
        return self.pi_id, self.image_id


def read(message: Message, *, received_time: datetime, max_bytes: int) -> Work:
    """Return the work that a message asks for; a message without an image is work too: its row says so.

    Raises:
        ForeignTopicError: the message does not come from a Pi.
    """
    topic = _TOPIC.fullmatch(message.topic)
    if topic is None:
        raise ForeignTopicError(f"topic {message.topic!r} is not images/<pi_id>")
    problem = None
    try:
        image = payload.decode(message.payload, max_bytes=max_bytes)
    except payload.PayloadError as error:
        image, problem = b"", str(error)
    captured_time = _captured_time(message.properties)
    return Work(
        pi_id=topic[1],
        image_id=payload.image_key(message.properties.get("image_id"), message.topic, image or message.payload),
        filename=_filename(message.properties),
        captured_time=captured_time,
        clock_suspect=captured_time is not None and _is_suspect(captured_time, received_time, message.properties),
        rotate=_rotation(message.properties),
        received_time=received_time,
        image=image,
        redelivered=message.redelivered,
        problem=problem,
        acknowledgements=[message.acknowledge],
    )


def _filename(properties: Mapping[str, str]) -> str | None:
    # PostgreSQL's text cannot hold NUL.
    return properties.get("filename", "").replace("\0", "")[:_LONGEST_FILENAME] or None


def _captured_time(properties: Mapping[str, str]) -> datetime | None:
    text = properties.get("captured_at")
    if text is None:
        return None
    try:
        # RFC 3339 has lower case and leap seconds, Python has not.
        moment = datetime.fromisoformat(_LEAP_SECOND.sub(":59", text.upper()))
        if moment.tzinfo is None:
            log.warning("captured_at %r has no zone (such as Z or +01:00); the row goes without it", text[:40])
            return None
        # In UTC, because PostgreSQL refuses offsets that Python knows, such as +23:00.
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.year not in _PLAUSIBLE_YEARS:
        log.warning("captured_at %r is not an RFC 3339 time; the row goes without it", text[:40])
        return None
    return moment


def _is_suspect(captured: datetime, received: datetime, properties: Mapping[str, str]) -> bool:
    return (
        properties.get("clock") == "unsynchronised"
        or captured > received + _FARTHEST_AHEAD
        or any(begin <= captured < begin + _CLOCKS_FIRST_DAYS for begin in _CLOCKS_BEGIN)
    )


def _rotation(properties: Mapping[str, str]) -> int:
    text = properties.get("rotate", "0")
    if text not in _ROTATIONS:
        log.warning("rotate %r is not 0, 90, 180 or 270; the image is not turned", text[:40])
    return _ROTATIONS.get(text, 0)
