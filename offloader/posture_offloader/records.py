"""The streams' records as the ConfigMap posture-placements holds them: a line of JSON for each stream."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from posture_edge.placement import Placement

from .handover import Placed, Record


class RecordError(ValueError):
    """What is written down of a stream cannot be read; the message names it."""


def write(record: Record) -> str:
    """Return the record as JSON."""
    return json.dumps(dataclasses.asdict(record), sort_keys=True)


def read(stream: str, text: str) -> Record:
    """Return the record that the text holds; raises RecordError."""
    try:
        said = json.loads(text)
        return Record(
            **{
                **said,
                "assigned": _placed(said["assigned"]),
                "pending": _placed(said["pending"]),
                "policy": None if said["policy"] is None else Placement(**said["policy"]),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"ConfigMap posture-placements: {stream}: {type(error).__name__}: {error}; take the key {stream} away, "
            "and the stream begins anew"
        ) from None


def _placed(said: Mapping[str, Any] | None) -> Placed | None:
    return None if said is None else Placed(**said)
