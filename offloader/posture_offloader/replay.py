"""Runs a recorded load trace through the policy: what would have moved, when and why. No clock, no network."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from posture_edge.placement import Decision, Node, Plan, Settings, Snapshot, State, plan, pressure
from posture_offloader.trace import Loads, Tick, Trace

FLAP_S = 300.0


@dataclass(frozen=True)
class Move:
    """A stream's change of node at `time` seconds; from None: its first placement."""

    time: float
    decision: Decision

    def as_json(self) -> dict[str, Any]:
        """Return the move in the shape that `replay --json` prints."""
        decision = self.decision
        return {
            "t": self.time,
            "stream": decision.stream,
            "from": decision.previous,
            "to": decision.node,
            "reason": decision.reason,
        }


@dataclass(frozen=True)
class Step:
    """One tick of a replay: the loads that the policy saw, and what it made of them."""

    time: float
    loads: Loads
    plan: Plan


@dataclass(frozen=True)
class Replay:
    """What came of a trace. `overload_seconds` is summed over the nodes that carry a stream."""

    steps: tuple[Step, ...]
    moves: tuple[Move, ...]
    flaps: int
    overload_seconds: float
    placements: Mapping[str, str | None]

    @property
    def hours(self) -> float:
        """How long the trace lasts."""
        return (self.steps[-1].time - self.steps[0].time) / 3600

    @property
    def moved(self) -> int:
        """How many moves there were, without the first placements."""
        return sum(move.decision.moves for move in self.moves)

    @property
    def moves_per_hour(self) -> float:
        """The same an hour; 0 for a trace of a single tick."""
        return self.moved / self.hours if self.hours else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the outcome in the shape that `replay --json` prints."""
        return {
            "moves": [move.as_json() for move in self.moves],
            "flaps": self.flaps,
            "overload_seconds": round(self.overload_seconds, 3),
            "moves_per_hour": round(self.moves_per_hour, 3),
            "placements": dict(self.placements),
        }


def replay(trace: Trace, settings: Settings, *, closed_loop: bool = False) -> Replay:
    """Run the trace through the policy, one sample a line.

    As recorded, a trace's loads do not react to what is decided. In closed loop they are the nodes' own, and each
    stream adds `settings.stream_load` to the node that it is on.
    """
    steps = tuple(_steps(trace, settings, closed_loop))
    moves = tuple(
        Move(step.time, decision)
        for step in steps
        for decision in step.plan.decisions
        if decision.node is not None and decision.node != decision.previous
    )
    return Replay(
        steps=steps,
        moves=moves,
        flaps=_count_flaps(moves),
        overload_seconds=_overload_seconds(trace, steps, settings, closed_loop),
        placements={decision.stream: decision.node for decision in steps[-1].plan.decisions},
    )


def _steps(trace: Trace, settings: Settings, closed_loop: bool) -> Iterator[Step]:
    required: dict[str, set[str]] = defaultdict(set)
    for tick in trace.ticks:
        for name, reported in tick.loads.items():
            required[name].update(reported)
    state = State()
    for tick in trace.ticks:
        loads = _with_streams(tick.loads, state, settings) if closed_loop else tick.loads
        snapshot = Snapshot(
            time=tick.time,
            nodes=[_node(name, tick, loads.get(name, {}), required[name]) for name in trace.header.nodes],
            streams=trace.header.streams,
            home=trace.header.home,
            prometheus=tick.prometheus,
        )
        planned = plan(snapshot, state, settings)
        state = planned.state
        yield Step(tick.time, loads, planned)


def _node(name: str, tick: Tick, loads: Mapping[str, float], required: set[str]) -> Node:
    missing = sorted(required - set(loads))
    unknown = tick.bad.get(name) or (f"no {' and no '.join(missing)}" if missing else None)
    return Node(name, loads, unknown, ready=name not in tick.not_ready, cordoned=name in tick.cordoned)


def _with_streams(own: Loads, state: State, settings: Settings) -> dict[str, dict[str, float]]:
    streams = Counter(placement.node for placement in state.placements.values())
    return {
        name: {
            metric: min(100.0, load + streams[name] * settings.stream_load.get(metric, 0.0))
            for metric, load in loads.items()
        }
        for name, loads in own.items()
    }


def _count_flaps(moves: tuple[Move, ...]) -> int:
    """Count the moves that lead a stream back to a node that it left less than `FLAP_S` seconds before."""
    flaps = 0
    left: dict[tuple[str, str], float] = {}
    for move in moves:
        decision = move.decision
        if not decision.moves or decision.node is None or decision.previous is None:
            continue
        flaps += move.time - left.get((decision.stream, decision.node), float("-inf")) <= FLAP_S
        left[decision.stream, decision.previous] = move.time
    return flaps


def _overload_seconds(trace: Trace, steps: tuple[Step, ...], settings: Settings, closed_loop: bool) -> float:
    total = 0.0
    for tick, step, following in zip(trace.ticks, steps, steps[1:], strict=False):
        state = step.plan.state
        loads = _with_streams(tick.loads, state, settings) if closed_loop else tick.loads
        carrying = {placement.node for placement in state.placements.values()}
        busy = sum(1 for name in carrying if loads.get(name) and pressure(loads[name], settings.limits)[0] >= 1)
        total += busy * (following.time - step.time)
    return total
