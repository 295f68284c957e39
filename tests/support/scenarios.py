"""Load traces as they happen in a lab: each function gives a trace of ticks 3 s apart."""

import random
from collections.abc import Callable, Iterable, Mapping

from posture_offloader.trace import Header, Tick, Trace

TICK_S = 3.0


def trace(
    at: Callable[[float], Mapping[str, Mapping[str, float]]],
    *,
    minutes: float,
    home: str | None = "nuc",
    nodes: Iterable[str] = ("nuc", "agx", "orin"),
    streams: int = 1,
    stream_load: Mapping[str, float] | None = None,
) -> Trace:
    """Return the trace whose loads are `at(seconds)`."""
    header = Header(home, tuple(nodes), tuple(f"pi{number + 1}" for number in range(streams)), stream_load or {})
    times = [number * TICK_S for number in range(int(minutes * 60 / TICK_S) + 1)]
    return Trace(header, tuple(Tick(time, at(time)) for time in times))


def square(low: float, high: float, period: float) -> Callable[[float], float]:
    """Return a load that is `low` for half a period and `high` for the other half."""
    return lambda time: low if time % period < period / 2 else high


def flapping(low: float = 49, high: float = 61, period: float = 60, minutes: float = 60) -> Trace:
    """Home goes up and down about its thresholds, the workers idle."""
    load = square(low, high, period)
    return trace(lambda t: {"nuc": {"cpu": load(t)}, "agx": {"cpu": 10}, "orin": {"cpu": 12}}, minutes=minutes)


def noise(seed: int, middle: float = 58, spread: float = 15) -> Trace:
    """Every node's load jumps about the threshold."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable trace, no secret
    return trace(
        lambda _: {node: {"cpu": chance.uniform(middle - spread, middle + spread)} for node in ("nuc", "agx", "orin")},
        minutes=60,
        streams=3,
        stream_load={"cpu": 5},
    )


def herd() -> Trace:
    """Home is busy by itself and eight streams look for another node, of which one is emptier than the other."""
    return trace(
        lambda _: {"nuc": {"cpu": 90}, "agx": {"cpu": 5}, "orin": {"cpu": 10}},
        minutes=20,
        streams=8,
        stream_load={"cpu": 10},
    )


def all_busy() -> Trace:
    """Every node is busy with other work from the second minute on."""
    return trace(
        lambda t: {node: {"cpu": 40 if t < 120 else 95} for node in ("nuc", "agx", "orin")},
        minutes=30,
        streams=3,
        stream_load={"cpu": 5},
    )


def heavy_stream() -> Trace:
    """One stream makes any node too busy but the idle one."""
    return trace(
        lambda t: {"nuc": {"cpu": 30 if t < 60 else 55}, "agx": {"cpu": 35}, "orin": {"cpu": 20}},
        minutes=30,
        stream_load={"cpu": 30},
    )


def own_load() -> Trace:
    """Home is free but for the stream's own load: it looks free again as soon as the stream has left."""
    return trace(
        lambda t: {"nuc": {"gpu": 30 if t < 60 else 45}, "agx": {"gpu": 10}, "orin": {"gpu": 12}},
        minutes=60,
        stream_load={"gpu": 20},
    )


MISTAKES = {
    "flapping": flapping(),
    "slow flapping": flapping(45, 75, 400, minutes=120),
    "noise": noise(1),
    "herd": herd(),
    "all busy": all_busy(),
    "heavy stream": heavy_stream(),
    "own load": own_load(),
}
