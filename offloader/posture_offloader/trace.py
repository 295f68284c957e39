"""Load traces: JSON lines, a header and then one line a tick. The format is in docs/placement.md."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

Loads = Mapping[str, Mapping[str, float]]


class TraceError(ValueError):
    """A trace that cannot be read; the message names the file, the line and what is wrong there."""


@dataclass(frozen=True)
class Header:
    """What does not change in a trace; `stream_load` is what one stream adds to a node, in percent (None: not said)."""

    home: str | None
    nodes: tuple[str, ...]
    streams: tuple[str, ...]
    stream_load: Mapping[str, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the trace's first line."""
        said = {} if self.stream_load is None else {"stream_load": dict(self.stream_load)}
        return {"home": self.home, "nodes": list(self.nodes), "streams": list(self.streams), **said}


@dataclass(frozen=True)
class Tick:
    """One look at all nodes: `time` in seconds, loads in percent by node and metric. What is absent is not known."""

    time: float
    loads: Loads
    not_ready: frozenset[str] = frozenset()
    cordoned: frozenset[str] = frozenset()
    prometheus: bool = True
    bad: Mapping[str, str] = field(default_factory=dict)  # why a node's load is no load


@dataclass(frozen=True)
class Trace:
    """A whole trace, its ticks in the order of time."""

    header: Header
    ticks: tuple[Tick, ...]


def read_trace(path: Path) -> Trace:
    """Read a trace from a file; raises TraceError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    return parse_trace(text.splitlines(), name=str(path))


def parse_trace(lines: Iterable[str], *, name: str = "trace") -> Trace:
    """Read a trace from its lines; `name` stands in the errors, which are TraceErrors."""
    entries = _entries(lines, name)
    where, first = next(entries, (f"{name}:1", None))
    if first is None or "t" in first:
        raise TraceError(
            f'{where}: the first line must be the header, {{"home": ..., "nodes": [...], "streams": [...]}}'
        )
    header = _header(first, where)
    ticks: list[Tick] = []
    for where, entry in entries:
        tick = _tick(entry, where)
        if ticks and tick.time <= ticks[-1].time:
            raise TraceError(f"{where}: t is {tick.time:g}, which is not after {ticks[-1].time:g} of the line before")
        ticks.append(tick)
    if not ticks:
        raise TraceError(f'{name}: no tick follows the header: a line is {{"t": seconds, "loads": {{...}}}}')
    return Trace(header, tuple(ticks))


def _entries(lines: Iterable[str], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        where = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            entry = json.loads(line, parse_int=lambda digits: int(digits) if len(digits) < 300 else float(digits))
        except (ValueError, RecursionError) as error:
            raise TraceError(f"{where}: no JSON: {error}") from error
        if not isinstance(entry, dict):
            raise TraceError(f"{where}: a line must be a JSON object, this is {_shown(entry)}")
        yield where, entry


def _header(entry: Mapping[str, Any], where: str) -> Header:
    home = entry.get("home")
    if home is not None and not isinstance(home, str):
        raise TraceError(f"{where}: home must be a node's name or null, it is {_shown(home)}")
    nodes = _names(entry, "nodes", where)
    given = entry.get("stream_load")
    stream_load = None if given is None else _percents(given, f"{where}: stream_load")
    if stream_load and (wrong := _wrong(stream_load)):
        raise TraceError(f"{where}: stream_load: {wrong}")
    return Header(
        home=home,
        nodes=nodes if home is None or home in nodes else (home, *nodes),
        streams=_names(entry, "streams", where),
        stream_load=stream_load,
    )


def _tick(entry: Mapping[str, Any], where: str) -> Tick:
    time = entry.get("t")
    if not _is_number(time) or not math.isfinite(time):
        raise TraceError(f"{where}: t must be seconds, it is {_shown(time)}")
    loads = entry.get("loads", {})
    if not isinstance(loads, dict):
        raise TraceError(f"{where}: loads must be an object of nodes, it is {_shown(loads)}")
    prometheus = entry.get("prometheus", True)
    if not isinstance(prometheus, bool):
        raise TraceError(f"{where}: prometheus must be true or false, it is {_shown(prometheus)}")
    read = {node: _percents(values, f"{where}: loads of {node}") for node, values in loads.items()}
    bad = {node: wrong for node, values in read.items() if (wrong := _wrong(values))}
    return Tick(
        time=float(time),
        loads={node: values for node, values in read.items() if node not in bad},
        not_ready=frozenset(_names(entry, "not_ready", where)),
        cordoned=frozenset(_names(entry, "cordoned", where)),
        prometheus=prometheus,
        bad=bad,
    )


def _names(entry: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    names = entry.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TraceError(f"{where}: {key} must be a list of names, it is {_shown(names)}")
    return tuple(dict.fromkeys(names))


def _percents(values: Any, where: str) -> dict[str, float]:
    if not isinstance(values, dict):
        raise TraceError(f"{where}: must be an object of metrics, it is {_shown(values)}")
    for metric, value in values.items():
        if value is not None and not _is_number(value):
            raise TraceError(f"{where}: {metric} must be a number of percent, it is {_shown(value)}")
    return {metric: float(value) for metric, value in values.items() if value is not None}


def _wrong(values: Mapping[str, float]) -> str:
    """Return which value is no percentage, else an empty text; a comparison with NaN is false."""
    return ", ".join(
        f"{metric} {value:g} is no percentage" for metric, value in values.items() if not 0 <= value <= 100
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return json.dumps(value)[:60]
