# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The policy: which node each stream belongs on, and why.

A pure function: `plan` takes what is seen at one tick, what is remembered of the ticks before, and the settings; it
returns a decision for each stream, a verdict on each node, and what to remember. It reads no clock and no network: the
offloader, `posture-offloader replay` and the module `node_select` all decide here.

Two rules keep streams from going back and forth. A stream does not go back to a node within `hold_s` of leaving it, and
one that came home stays there for `hold_s`. Only a node that is gone or not Ready overrides them, where no other has
room. A home that turns out to be busy again within that time is avoided twice as long next time, up to `hold_max_s`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

WINDOW = 5  # samples that are remembered of each node
OVERLOADED_SAMPLES = 3  # of them at or above `high`: one burst moves nothing


@dataclass(frozen=True)
class Limits:
    """Percent of one metric: from `high` on a node is too busy, below `low` it is free."""

    high: float = 60.0
    low: float = 50.0


DEFAULT_LIMITS: Mapping[str, Limits] = MappingProxyType(
    {"gpu": Limits(60, 50), "cpu": Limits(60, 50), "memory": Limits(90, 80)}
)
ANY_METRIC = Limits()
NO_LOAD: Mapping[str, float] = MappingProxyType({})
DEFAULT_STREAM_LOAD: Mapping[str, float] = MappingProxyType({"gpu": 0.0, "cpu": 15.0, "memory": 2.0})


@dataclass(frozen=True)
class Settings:
    """What a lab may choose; times in seconds, `stream_load` in percent that one stream adds to its node."""

    limits: Mapping[str, Limits] = field(default_factory=lambda: dict(DEFAULT_LIMITS))
    stream_load: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_STREAM_LOAD))
    streams_per_node: int | None = None
    cooldown_s: float = 30.0
    settle_s: float = 60.0
    hold_s: float = 300.0
    hold_max_s: float = 3600.0


@dataclass(frozen=True)
class Node:
    """A node as it is now: its loads in percent by metric, or why they are not known."""

    name: str
    loads: Mapping[str, float] = field(default_factory=dict)
    unknown: str | None = None
    ready: bool = True
    cordoned: bool = False
    tainted: bool = False


@dataclass(frozen=True)
class Snapshot:
    """What is seen at one tick: `time` in seconds of any clock that does not go back."""

    time: float
    nodes: Sequence[Node]
    streams: Sequence[str]
    home: str | None = None
    prometheus: bool = True


@dataclass(frozen=True)
class Sample:
    """One look at a node: whether its pressure was 1 or more, and whether every metric was below `low`."""

    busy: bool = False
    free: bool = False


NOTHING_SEEN, BUSY, FREE = Sample(), Sample(busy=True), Sample(free=True)


@dataclass(frozen=True)
class History:
    """The last samples of a node, the newest last, and how many of them came after the last stream was moved off it."""

    samples: tuple[Sample, ...] = ()
    since_relief: int = 0

    def seen(self, sample: Sample) -> History:
        """Return the history with one more sample."""
        return History((*self.samples, sample)[-WINDOW:], min(self.since_relief + 1, WINDOW))

    def overloaded(self) -> bool:
        """Whether enough of the last samples were at or above `high`."""
        return _count_busy(self.samples) >= OVERLOADED_SAMPLES

    def needs_relief(self) -> bool:
        """Whether it was overloaded since the last stream left, too: that one's load needs time to go."""
        return self.since_relief > 0 and _count_busy(self.samples[-self.since_relief :]) >= OVERLOADED_SAMPLES

    def free(self) -> bool:
        """Whether every metric was below `low` in all of the last samples."""
        return len(self.samples) == WINDOW and all(sample.free for sample in self.samples)


@dataclass(frozen=True)
class Placement:
    """Where a stream is, since when (seconds), whether it moved there, and until when it stays away from which node."""

    node: str
    since: float
    moved: bool = False
    barred: Mapping[str, float] = field(default_factory=dict)
    came_home: float | None = None
    regrets: bool = False  # home was overloaded again before it had settled there
    home_hold_s: float = 0.0  # how long it last stayed away from home


@dataclass(frozen=True)
class State:
    """What one tick hands to the next."""

    histories: Mapping[str, History] = field(default_factory=dict)
    placements: Mapping[str, Placement] = field(default_factory=dict)


class Word(StrEnum):
    """A verdict in a word. Only a `TARGET` may be given another stream."""

    TARGET = "target"
    NO_ROOM = "no room"
    FULL = "full"
    BUSY = "busy"
    OVERLOADED = "overloaded"
    UNKNOWN = "unknown"
    CORDONED = "cordoned"
    TAINTED = "tainted"
    NOT_READY = "not ready"


# A home of these takes nothing, not even when no node has room; a busy or unknown one does.
REFUSING = frozenset({Word.CORDONED, Word.TAINTED, Word.NOT_READY})


@dataclass(frozen=True)
class Verdict:
    """What is thought of a node: pressures as parts of `high`, the expected one with one more stream."""

    node: str
    word: Word
    reason: str
    pressure: float | None = None
    expected: float | None = None
    streams: int = 0

    @property
    def rank(self) -> tuple[float, int, str]:
        """The order of choice: lowest expected pressure, then fewest streams, then name."""
        return (float("inf") if self.expected is None else self.expected, self.streams, self.node)


@dataclass(frozen=True)
class Decision:
    """Where a stream goes (None: it waits), from where (None: it had no node yet), and why."""

    stream: str
    node: str | None
    previous: str | None
    reason: str

    @property
    def moves(self) -> bool:
        """Whether the stream leaves a node for another."""
        return self.previous is not None and self.node != self.previous


@dataclass(frozen=True)
class Plan:
    """The outcome of a tick."""

    decisions: tuple[Decision, ...]
    verdicts: Mapping[str, Verdict]
    state: State


def plan(snapshot: Snapshot, state: State, settings: Settings) -> Plan:
    """Decide for each stream of the snapshot, in the order of how long they have been where they are."""
    histories = {name: state.histories.get(name, History()) for name in (node.name for node in snapshot.nodes)}
    if snapshot.prometheus:
        for node in snapshot.nodes:
            histories[node.name] = histories[node.name].seen(_sample(node, settings))
    placements = {stream: state.placements[stream] for stream in snapshot.streams if stream in state.placements}
    tick = _Tick(snapshot, settings, histories, placements)
    order = sorted(set(snapshot.streams), key=lambda stream: (_since(placements.get(stream)), stream))
    decisions = {stream: tick.decide(stream) for stream in order}
    return Plan(
        decisions=tuple(decisions[stream] for stream in sorted(decisions)),
        verdicts=tick.verdicts,
        state=State(histories=tick.histories, placements=tick.placements),
    )


def judge(nodes: Iterable[Node], settings: Settings, *, streams: Mapping[str, int] | None = None) -> dict[str, Verdict]:
    """Return the verdict on each node by a single look; `streams` counts those that each has, all of them settled."""
    counted = streams or {}
    return {
        node.name: _with_streams(_alone(node, settings, History()), node, settings, counted.get(node.name, 0), 0)
        for node in nodes
    }


def choose(verdicts: Mapping[str, Verdict], home: str | None = None) -> Verdict | None:
    """Return the verdict on the node for a stream that has none: home if that is a target, else the best target."""
    targets = [verdict for verdict in verdicts.values() if verdict.word is Word.TARGET]
    at_home = [verdict for verdict in targets if verdict.node == home]
    return min(at_home or targets, key=lambda verdict: verdict.rank, default=None)


def pressure(
    loads: Mapping[str, float],
    limits: Mapping[str, Limits],
    stream_load: Mapping[str, float] = NO_LOAD,
    streams: int = 0,
) -> tuple[float, str]:
    """Return a node's pressure, the largest load / high of its metrics (1.0 is too busy), and that metric's name.

    With so many more streams, each of which adds `stream_load`.
    """
    highest, of = -1.0, ""
    for metric, load in loads.items():
        more = streams * stream_load.get(metric, 0.0) if streams else 0.0
        part = (load + more) / limits.get(metric, ANY_METRIC).high
        if part > highest or (part == highest and metric < of):
            highest, of = part, metric
    return highest, of


class _Tick:
    """The working state of one call of `plan`: it is written while decisions fall, for a decision changes the next."""

    def __init__(
        self,
        snapshot: Snapshot,
        settings: Settings,
        histories: dict[str, History],
        placements: dict[str, Placement],
    ) -> None:
        self.snapshot = snapshot
        self.settings = settings
        self.histories = histories
        self.placements = placements
        self.nodes = {node.name: node for node in snapshot.nodes}
        self.streams = Counter(placement.node for placement in placements.values())
        self.arriving = Counter(
            placement.node for placement in placements.values() if snapshot.time - placement.since < settings.settle_s
        )
        self.alone = {name: _alone(node, settings, histories[name]) for name, node in self.nodes.items()}
        self.verdicts = {name: self._judge(name) for name in self.nodes}
        self.left: set[str] = set()
        self.workers = [
            verdict.rank
            for verdict in self.verdicts.values()
            if verdict.word is Word.TARGET and verdict.node != snapshot.home
        ]
        heapq.heapify(self.workers)
        # What decisions are about: the verdicts as the tick found them are what gets shown.
        self.current = dict(self.verdicts)

    def decide(self, stream: str) -> Decision:
        placement = self.placements.get(stream)
        if placement is None:
            return self._place(stream)
        node = self.nodes.get(placement.node)
        if not self.snapshot.prometheus:
            return _stay(stream, placement, "Prometheus does not answer: nothing moves")
        if node is None or not node.ready or node.tainted:
            cause = "gone" if node is None else "tainted" if node.ready else "not Ready"
            return self._rescue(stream, placement, cause)
        home = self.snapshot.home
        if self._barred(placement, placement.node):
            return self._rescue(stream, placement, "no place where its analyzer gets ready")
        not_home = "" if home is None or placement.node == home else self._not_home(placement, home)
        if home is not None and placement.node != home and not not_home:
            return self._come_home(stream, home)
        if self.histories[placement.node].needs_relief():
            return self._relieve(stream, placement)
        if placement.regrets and self._at_home_s(placement) > 2 * self.settings.hold_s:
            self.placements[stream] = replace(placement, regrets=False)  # it ended well after all
        kept = f"{placement.node} keeps it: {self.verdicts[placement.node].reason}"
        return _stay(stream, placement, f"{kept}; {not_home}" if not_home else kept)

    def _place(self, stream: str) -> Decision:
        home = self.snapshot.home
        if self.snapshot.prometheus:
            if home is not None and self._is_target(home):
                return self._go(stream, home, f"it starts at home: {self.current[home].reason}")
            best = self._best_worker()
            if best is not None:
                away = "" if home is None else f"home {home}: {self._state_of(home)}; "
                return self._go(stream, best, f"{away}{self._expected(best)}")
        if home is not None and self._takes_anything(home):
            cause = "no node has room" if self.snapshot.prometheus else "Prometheus does not answer"
            return self._go(stream, home, f"{cause}: it starts at home")
        cause = "no node has room" if self.snapshot.prometheus else "Prometheus does not answer"
        return Decision(stream, None, None, f"it waits: {cause} and there is no home that could take it")

    def _rescue(self, stream: str, placement: Placement, cause: str) -> Decision:
        why = f"{placement.node} is {cause}"
        wait = self._must_wait(placement)
        if wait:
            return _stay(stream, placement, f"{why}, but {wait}")
        home = None if self.snapshot.home == placement.node else self.snapshot.home
        for avoiding in (placement, None):  # a node that it left just now is better than none, and no better than that
            if home is not None and self._is_target(home) and not (avoiding and self._barred(avoiding, home)):
                return self._go(stream, home, f"{why}; home {home} takes it: {self.current[home].reason}")
            best = self._best_worker(avoiding)
            if best is not None and best != placement.node:
                return self._go(stream, best, f"{why}; {self._expected(best)}")
        if home is not None and self._takes_anything(home):
            return self._go(stream, home, f"{why} and no node has room: it goes home")
        return _stay(stream, placement, f"{why}, but no node has room: it waits")

    def _come_home(self, stream: str, home: str) -> Decision:
        reason = f"home {home} was below every low limit in {WINDOW} of {WINDOW} samples"
        decision = self._go(stream, home, reason)
        self.placements[stream] = replace(self.placements[stream], came_home=self.snapshot.time)
        return decision

    def _not_home(self, placement: Placement, home: str) -> str:
        """Return why the stream does not go home, empty where it does."""
        if not self.histories.get(home, History()).free():
            return f"home {home} was not below every low limit in {WINDOW} of {WINDOW} samples"
        if not self._is_target(home):
            return f"home {home}: {self._state_of(home)}"
        return self._barred(placement, home) or self._must_wait(placement)

    def _relieve(self, stream: str, placement: Placement) -> Decision:
        why = f"{placement.node} is overloaded: {self.verdicts[placement.node].reason}"
        settling = self._settling_at_home(placement)
        if settling:
            self.placements[stream] = replace(placement, regrets=True)
        wait = self._must_wait(placement) or settling
        if wait:
            return _stay(stream, placement, f"{why}; but {wait}")
        best, home = self._best_worker(placement), self.snapshot.home
        history = self.histories[placement.node]
        if best is not None:
            decision = self._go(stream, best, f"{why}; {self._expected(best)}")
        elif home is not None and self._is_last_resort(home, history) and not self._barred(placement, home):
            decision = self._go(stream, home, f"{why}; only home {home} has room: {self.current[home].reason}")
        else:
            return _stay(stream, placement, f"{why}; but no node has room that it did not leave just now")
        self.histories[placement.node] = replace(history, since_relief=0)
        return decision

    def _must_wait(self, placement: Placement) -> str:
        left = self.settings.cooldown_s - (self.snapshot.time - placement.since)
        if placement.moved and left > 0:
            return f"it moved less than {self.settings.cooldown_s:g} s ago"
        if placement.node in self.left:
            return f"one stream leaves {placement.node} at a time"
        return ""

    def _at_home_s(self, placement: Placement) -> float:
        return float("inf") if placement.came_home is None else self.snapshot.time - placement.came_home

    def _settling_at_home(self, placement: Placement) -> str:
        left = self.settings.hold_s - self._at_home_s(placement)
        return f"it came home just now and stays {left:.0f} s more" if left >= 0 else ""

    def _barred(self, placement: Placement, node: str) -> str:
        left = placement.barred.get(node, float("-inf")) - self.snapshot.time
        return f"it left {node} and does not go back for {left:.0f} s more" if left >= 0 else ""

    def _is_target(self, node: str) -> bool:
        return node in self.current and self.current[node].word is Word.TARGET

    def _is_last_resort(self, home: str, overloaded: History) -> bool:
        """Whether it is a target, and neither its window nor the overloaded node's speaks against going there."""
        calm = self.histories.get(home, History()).samples
        return (
            self._is_target(home)
            and len(calm) == WINDOW
            and not _count_busy(calm)
            and _count_busy(overloaded.samples) == WINDOW
        )

    def _takes_anything(self, node: str) -> bool:
        if node not in self.current or self.current[node].word in REFUSING:
            return False
        most = self.settings.streams_per_node
        return most is None or self.streams[node] < most

    def _state_of(self, node: str) -> str:
        return self.current[node].reason if node in self.current else "gone"

    def _expected(self, node: str) -> str:
        return f"{node} has the lowest expected pressure, {self.current[node].expected:.2f}"

    def _best_worker(self, placement: Placement | None = None) -> str | None:
        """Return the best target but for what `placement` is barred from; entries that are out of date fall away."""
        passed = []
        found = None
        while self.workers:
            rank = self.workers[0]
            name = rank[2]
            if not self._is_target(name) or self.current[name].rank != rank:
                heapq.heappop(self.workers)
            elif placement and (name == placement.node or self._barred(placement, name)):
                passed.append(heapq.heappop(self.workers))
            else:
                found = name
                break
        for rank in passed:
            heapq.heappush(self.workers, rank)
        return found

    def _go(self, stream: str, node: str, reason: str) -> Decision:
        before = self.placements.get(stream)
        if before is not None:
            self.streams[before.node] -= 1
            self.left.add(before.node)
        self.streams[node] += 1
        self.arriving[node] += 1
        self.placements[stream] = self._moved(before, node)
        self._judge_again(node)
        return Decision(stream, node, before.node if before else None, reason)

    def _moved(self, before: Placement | None, node: str) -> Placement:
        now, home, settings = self.snapshot.time, self.snapshot.home, self.settings
        if before is None:
            return Placement(node, now)
        hold_s, home_hold_s = settings.hold_s, before.home_hold_s
        if before.node == home:
            again = before.regrets or self._at_home_s(before) < settings.hold_s
            doubled = 2 * home_hold_s if again else 0.0
            hold_s = home_hold_s = min(max(settings.hold_s, doubled), settings.hold_max_s)
        barred = {name: until for name, until in before.barred.items() if until >= now and name != node}
        barred[before.node] = now + hold_s
        return Placement(node, now, moved=True, barred=barred, home_hold_s=home_hold_s)

    def _judge(self, node: str) -> Verdict:
        return _with_streams(self.alone[node], self.nodes[node], self.settings, self.streams[node], self.arriving[node])

    def _judge_again(self, node: str) -> None:
        self.current[node] = self._judge(node)
        if self._is_target(node) and node != self.snapshot.home:
            heapq.heappush(self.workers, self.current[node].rank)


def _alone(node: Node, settings: Settings, history: History) -> Verdict:
    """Return the verdict on a node as it is, whatever streams are on it."""
    if not node.ready:
        return Verdict(node.name, Word.NOT_READY, "not Ready, or gone")
    if node.unknown is not None or not node.loads:
        lately = f"; too busy in {_count_busy(history.samples)} of {WINDOW} samples" if history.overloaded() else ""
        return Verdict(node.name, Word.UNKNOWN, f"{node.unknown or 'no load is known of it'}{lately}")
    now, metric = pressure(node.loads, settings.limits)
    load = f"{metric} {node.loads[metric]:.0f} % of {settings.limits.get(metric, ANY_METRIC).high:g} %"
    if node.cordoned:
        return Verdict(node.name, Word.CORDONED, f"cordoned; {load}", now)
    if node.tainted:
        return Verdict(node.name, Word.TAINTED, f"its taint keeps streams away; {load}", now)
    if history.overloaded():
        busy = _count_busy(history.samples)
        return Verdict(node.name, Word.OVERLOADED, f"too busy in {busy} of {WINDOW} samples, now {load}", now)
    return Verdict(node.name, Word.BUSY if now >= 1 else Word.TARGET, load, now)


def _with_streams(alone: Verdict, node: Node, settings: Settings, streams: int, arriving: int) -> Verdict:
    """Return the verdict on a node with its streams: a target may turn out to be full, or without room for another."""
    if alone.pressure is None:
        return alone
    expected, metric = pressure(node.loads, settings.limits, settings.stream_load, arriving + 1)
    word, reason = alone.word, alone.reason
    if word is Word.TARGET and settings.streams_per_node is not None and streams >= settings.streams_per_node:
        word, reason = Word.FULL, f"it has its {streams} of {settings.streams_per_node} streams"
    elif word is Word.TARGET and expected >= 1:
        percent = expected * settings.limits.get(metric, ANY_METRIC).high
        arrived = f" and the {arriving} that came just now" if arriving else ""
        word, reason = Word.NO_ROOM, f"one more stream{arrived} would make {metric} {percent:.0f} %"
    return Verdict(alone.node, word, reason, alone.pressure, expected, streams)


def _sample(node: Node, settings: Settings) -> Sample:
    if not node.ready or not node.loads:
        return NOTHING_SEEN
    limits = settings.limits
    if pressure(node.loads, limits)[0] >= 1:
        return BUSY  # whatever else is not known of it
    if node.unknown is not None:
        return NOTHING_SEEN
    return (
        FREE if all(load < limits.get(metric, ANY_METRIC).low for metric, load in node.loads.items()) else NOTHING_SEEN
    )


def _count_busy(samples: Iterable[Sample]) -> int:
    return [sample.busy for sample in samples].count(True)


def _since(placement: Placement | None) -> float:
    return float("-inf") if placement is None else placement.since


def _stay(stream: str, placement: Placement, reason: str) -> Decision:
    return Decision(stream, placement.node, placement.node, reason)
