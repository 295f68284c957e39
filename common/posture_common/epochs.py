"""What analyzers and the offloader tell each other of a stream's epochs, retained at the broker.

posture/streams/<stream>/assignment        the offloader: the epoch that the stream belongs to
posture/streams/<stream>/<epoch>/status    the analyzer of that epoch: what it does
posture/streams/<stream>/trial             the analyzer at work: which image may end it (posture_analyzer/trial.py)
"""

import re
from enum import StrEnum, auto
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

STREAMS = "posture/streams"
ASSIGNMENT = "assignment"
EPOCH_MAX = 10**9
"""A new epoch every second comes here after 30 years; with it the name of a Job has at most 59 of its 63 characters."""
PAYLOAD_BYTES_MAX = 4096
_STATUS = re.compile(r"([0-9]+)/status")
_EPOCH = re.compile(r"[1-9][0-9]{0,9}")

Epoch = Annotated[int, Field(ge=1, le=EPOCH_MAX)]
Node = Annotated[str, Field(min_length=1, max_length=253)]


class State(StrEnum):
    """What an analyzer says of itself on `posture/streams/<stream>/<epoch>/status`."""

    WARMING = auto()
    READY = auto()
    ACTIVE = auto()
    DRAINING = auto()
    DONE = auto()
    GONE = auto()


class MalformedError(Exception):
    """A message that no offloader and no analyzer of ours writes."""


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Return what the payload says; raises MalformedError."""
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise MalformedError(f"it has {len(payload)} bytes, more than {PAYLOAD_BYTES_MAX}")
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            detail = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, detail["loc"]))
            raise MalformedError(f"{where}: {detail['msg']}" if where else detail["msg"]) from None


class Assignment(_Payload):
    """Which epoch a stream belongs to; without a node the stream is removed."""

    epoch: Epoch
    node: Node | None


class Status(_Payload):
    """What the analyzer of one epoch says."""

    epoch: Epoch
    node: Annotated[str, Field(max_length=253)]
    state: State


def assignment_topic(stream: str) -> str:
    """Return the topic of a stream's assignment."""
    return f"{STREAMS}/{stream}/{ASSIGNMENT}"


def trial_topic(stream: str) -> str:
    """Return the topic on which a stream's analyzers note what the one before them died of."""
    return f"{STREAMS}/{stream}/trial"


def status_topic(stream: str, epoch: int) -> str:
    """Return the topic on which an epoch's analyzer says what it does."""
    return f"{STREAMS}/{stream}/{epoch}/status"


def epoch_of(subtopic: str) -> int | None:
    """Return the epoch of which `subtopic`, the part after the stream, is the status; None where it is no status.

    Raises:
        MalformedError: it is the status of an epoch that cannot be.
    """
    found = _STATUS.fullmatch(subtopic)
    if found is None:
        return None
    if _EPOCH.fullmatch(found[1]) is None or int(found[1]) > EPOCH_MAX:
        raise MalformedError(f"epoch {found[1][:20]} is not within 1 and {EPOCH_MAX}")
    return int(found[1])
