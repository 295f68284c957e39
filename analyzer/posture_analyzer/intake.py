"""From a message to the work it asks for: whose image it is, its key, its bytes. Pure."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from posture_common.mqtt import Message

from . import payload
from .database import Key

log = logging.getLogger(__name__)

_TOPIC = re.compile(r"images/([A-Za-z0-9_-]{1,64})")
_LEAP_SECOND = re.compile(r"(?<=[T ]\d\d:\d\d):60")
_LONGEST_FILENAME = 255
_PLAUSIBLE_YEARS = range(1970, 3000)
"""Beyond them, some part between here and the dashboard cannot hold the time."""


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
    rotate: int = 0
    """Degrees clockwise by which the picture is to be turned."""
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
    return Work(
        pi_id=topic[1],
        image_id=payload.image_key(message.properties.get("image_id"), message.topic, image or message.payload),
        filename=_filename(message.properties),
        captured_time=_captured_time(message.properties),
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
    except ValueError:
        moment = None
    if moment is None or moment.year not in _PLAUSIBLE_YEARS:
        log.warning("captured_at %r is not an RFC 3339 time; the row goes without it", text[:40])
        return None
    # In UTC, because PostgreSQL refuses offsets that Python knows, such as +23:00.
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
