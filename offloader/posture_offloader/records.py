"""The streams' records as the ConfigMap posture-placements holds them: a line of JSON for each stream."""

import dataclasses
import json

from pydantic import TypeAdapter, ValidationError

from .handover import Record

_RECORD = TypeAdapter(Record)


class RecordError(ValueError):
    """What is written down of a stream cannot be read; the message names it."""


def write(record: Record) -> str:
    """Return the record as JSON."""
    return json.dumps(dataclasses.asdict(record), sort_keys=True)


def read(stream: str, text: str) -> Record:
    """Return the record that the text holds; raises RecordError."""
    try:
        return _RECORD.validate_json(text)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        where = "".join(f"{part}: " for part in detail["loc"])
        raise RecordError(f"ConfigMap posture-placements: {stream}: {where}{detail['msg']}") from None
