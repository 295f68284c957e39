"""Where each stream is and what is thought of each node: posture/offloader/status, and its text for people."""

import json
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from posture_common.epochs import State
from posture_common.mqtt import Broker, Connection, ConnectionLostError

from .board import STATUS_TOPIC, Board
from .controller import Controller
from .handover import Job, Placed, Record, Wanted

Status = Mapping[str, Any]
_PATIENCE_S = 5.0


def status(controller: Controller, board: Board, problem: str | None) -> Status:
    """Return the status in the shape that `posture-offloader status --json` prints."""
    picture = controller.picture
    problems = [each for each in (problem, picture.prometheus) if each]
    streams = sorted({*controller.records, *picture.wanted})
    return {
        "streams": [
            _stream(
                stream,
                controller.records.get(stream, Record()),
                picture.wanted.get(stream),
                controller.jobs.get(stream, {}),
                {epoch: state for epoch, (state, _) in board.states(stream).items()},
                board.frame_age_s(stream),
            )
            for stream in streams
        ],
        "nodes": [
            {
                "node": node.name,
                "loads": {metric: round(value, 1) for metric, value in node.loads.items()},
                "verdict": picture.verdicts[node.name].word.value,
                "reason": picture.verdicts[node.name].reason,
            }
            for node in picture.nodes
        ],
        "problems": problems,
    }


def _stream(
    stream: str,
    record: Record,
    wanted: Wanted | None,
    jobs: Mapping[int, Job],
    states: Mapping[int, State],
    frame_age_s: float | None,
) -> dict[str, Any]:
    placed = record.assigned if record.assigned is not None and record.assigned.node else record.pending
    epoch = 0 if placed is None else placed.epoch
    return {
        "stream": stream,
        "node": placed.node if placed else None,
        "epoch": epoch,
        "state": states[epoch].value if epoch in states else ("starting" if placed else "waiting"),
        "since": _time(placed),
        "reason": _reason(record, wanted, jobs),
        "frame_age_s": None if frame_age_s is None else round(frame_age_s, 2),
        "moving_to": record.pending.node if record.pending and record.assigned else None,
    }


def _reason(record: Record, wanted: Wanted | None, jobs: Mapping[int, Job]) -> str:
    if wanted is None:
        return "it is not wanted any more and ends"
    pending = record.pending
    if pending is None:
        parts = [wanted.reason, record.problem]
    else:
        problem = jobs.get(pending.epoch, Job()).problem
        parts = [pending.reason, f"{pending.node}: {problem}" if problem else record.problem]
    return "; ".join(part for part in parts if part)


def _time(placed: Placed | None) -> str | None:
    return None if placed is None else datetime.fromtimestamp(placed.since, UTC).isoformat(timespec="seconds")


def as_text(said: Status) -> str:
    """Return the status as a person wants to read it."""
    rows = [("stream", "node", "epoch", "state", "since", "frame age", "why")]
    for each in said["streams"]:
        node = f"{each['node'] or '-'}{' -> ' + each['moving_to'] if each.get('moving_to') else ''}"
        age = "-" if each["frame_age_s"] is None else f"{each['frame_age_s']:.2f} s"
        rows.append(
            (each["stream"], node, str(each["epoch"]), each["state"], each["since"] or "-", age, each["reason"])
        )
    lines = _table(rows)
    loads = [("node", "load", "verdict", "why")]
    for each in said["nodes"]:
        load = ", ".join(f"{metric} {value:.0f} %" for metric, value in each["loads"].items())
        loads.append((each["node"], load or "-", each["verdict"], each["reason"]))
    return "\n".join([*lines, "", *_table(loads), *(f"! {problem}" for problem in said.get("problems", []))])


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def ask(broker: Broker) -> Status:
    """Return what the offloader said last; raises ConnectionLostError where it never said anything."""
    with Connection(broker, client_id="", topics=[STATUS_TOPIC]) as connection:
        patience = threading.Timer(_PATIENCE_S, connection.interrupt)
        patience.start()
        try:
            for batch in connection.batches(1):
                said: Status = json.loads(batch[0].payload)
                return said
        finally:
            patience.cancel()
    raise ConnectionLostError(f"{broker}: no offloader has said anything yet; see its log")
