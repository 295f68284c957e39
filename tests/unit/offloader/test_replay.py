"""Traces through the policy: the old mistakes stay away, and the figures are counted right."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posture_offloader.replay import Replay, replay
from posture_offloader.trace import Header, Tick, Trace

from posture_edge.placement import Settings
from tests.support import scenarios


def run(trace: Trace, *, closed_loop: bool = False) -> Replay:
    return replay(trace, Settings(stream_load=trace.header.stream_load or {}), closed_loop=closed_loop)


def moved(result: Replay) -> list[tuple[str | None, str | None]]:
    return [(move.decision.previous, move.decision.node) for move in result.moves if move.decision.moves]


@pytest.mark.parametrize("closed_loop", [False, True], ids=["as recorded", "closed loop"])
@pytest.mark.parametrize("name", scenarios.MISTAKES)
def test_old_mistakes_replay_without_a_flap(name: str, closed_loop: bool) -> None:
    assert run(scenarios.MISTAKES[name], closed_loop=closed_loop).flaps == 0


@given(seed=st.integers(0, 10_000), closed_loop=st.booleans())
@settings(max_examples=10, deadline=None)
def test_noise_about_the_threshold_never_flaps(seed: int, closed_loop: bool) -> None:
    assert run(scenarios.noise(seed), closed_loop=closed_loop).flaps == 0


@given(period=st.floats(6, 1500), phase=st.floats(0, 1500))
@settings(max_examples=30, deadline=None)
def test_oscillation_about_the_thresholds_moves_at_most_once_in_5_minutes(period: float, phase: float) -> None:
    load = scenarios.square(49, 61, period)
    result = run(scenarios.trace(lambda t: {"nuc": {"cpu": load(t + phase)}, "agx": {"cpu": 5}}, minutes=60))
    times = [move.time for move in result.moves if move.decision.moves]
    assert all(later - earlier > 300 for earlier, later in pairwise(times))


def test_home_is_left_when_it_is_too_busy_and_found_again_when_it_is_free() -> None:
    result = run(
        scenarios.trace(lambda t: {"nuc": {"cpu": 70 if 60 <= t < 600 else 30}, "agx": {"cpu": 5}}, minutes=15)
    )
    assert moved(result) == [("nuc", "agx"), ("agx", "nuc")]
    left, returned = (move.time for move in result.moves if move.decision.moves)
    assert left == 66  # the third sample at 60 % or more
    assert returned == 612  # the fifth below 50 %
    assert result.overload_seconds == 6
    assert result.moves_per_hour == pytest.approx(8)


def test_a_home_that_is_busy_again_each_time_is_avoided_longer_each_time() -> None:
    result = run(scenarios.flapping(45, 75, 400, minutes=120))
    times = [move.time for move in result.moves if move.decision.moves]
    away = [back - left for left, back in zip(times[::2], times[1::2], strict=False)]
    assert all(later >= min(2 * earlier, 3600) - 200 for earlier, later in pairwise(away))
    assert result.moved < 10  # 18, were it avoided as long each time


def test_herd_fills_no_node_beyond_its_limit() -> None:
    result = run(scenarios.herd(), closed_loop=True)
    assert result.overload_seconds == 0
    carried = Counter(result.placements.values())
    assert carried == {"agx": 4, "orin": 4}  # 5 % and 10 % of their own, and 40 % of the streams


def test_all_busy_moves_nothing() -> None:
    assert moved(run(scenarios.all_busy())) == []


def test_streams_off_an_overloaded_node_leave_one_by_one_until_it_is_enough() -> None:
    trace = scenarios.trace(
        lambda t: {"nuc": {"cpu": 10 if t < 60 else 40}, "agx": {"cpu": 5}, "orin": {"cpu": 5}},
        minutes=10,
        streams=3,
        stream_load={"cpu": 12},
    )
    result = run(trace, closed_loop=True)
    assert len(moved(result)) == 2  # 40 + 3 * 12 = 76 %, 64 % with two, 52 % with one
    assert sum(node == "nuc" for node in result.placements.values()) == 1


def test_a_flap_and_overload_are_counted() -> None:
    trace = Trace(
        Header(None, ("agx", "orin"), ("pi1",), {}),
        tuple(
            Tick(time, {"agx": {"cpu": 10}, "orin": {"cpu": 20}}, not_ready=frozenset({gone}))
            for time, gone in ((0, "orin"), (100, "agx"), (200, "orin"), (600, "agx"))
        ),
    )
    result = run(trace)
    assert moved(result) == [("agx", "orin"), ("orin", "agx"), ("agx", "orin")]
    assert result.flaps == 1  # back to agx after 100 s; back to orin after 400 s is none
    assert result.overload_seconds == 0


def test_first_placement_is_shown_and_is_no_move() -> None:
    result = run(scenarios.trace(lambda _: {"nuc": {"cpu": 30}}, minutes=1))
    assert [move.as_json()["from"] for move in result.moves] == [None]
    assert result.moves_per_hour == 0
    assert result.as_json()["placements"] == {"pi1": "nuc"}


def test_prometheus_away_moves_nothing_even_off_a_dead_node() -> None:
    trace = scenarios.trace(lambda _: {"nuc": {"cpu": 30}, "agx": {"cpu": 5}}, minutes=5)
    away = replace(
        trace,
        ticks=tuple(
            replace(tick, prometheus=False, loads={}, not_ready=frozenset({"nuc"})) if tick.time > 30 else tick
            for tick in trace.ticks
        ),
    )
    result = run(away)
    assert moved(result) == []
    assert "Prometheus does not answer" in result.steps[-1].plan.decisions[0].reason


def test_a_metric_that_a_node_once_had_is_missed() -> None:
    ticks = [Tick(0, {"nuc": {"gpu": 10, "cpu": 10}}), Tick(3, {"nuc": {"cpu": 10}})]
    result = run(Trace(Header("nuc", ("nuc",), ("pi1",), {}), tuple(ticks)))
    assert [step.plan.verdicts["nuc"].reason for step in result.steps][1] == "no gpu"


@given(
    st.lists(
        st.fixed_dictionaries(
            {node: st.floats(0, 100) for node in ("nuc", "agx", "orin")}
            | {"gone": st.sampled_from([None, None, None, "nuc", "agx", "orin"])}
        ),
        min_size=2,
        max_size=50,
    ),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_whatever_happens_no_stream_moves_twice_within_the_cooldown(
    lines: list[dict[str, float | str | None]], closed_loop: bool
) -> None:
    ticks = tuple(
        Tick(
            number * 3.0,
            {node: {"cpu": float(line[node] or 0)} for node in ("nuc", "agx", "orin")},
            not_ready=frozenset({str(line["gone"])} - {"None"}),
        )
        for number, line in enumerate(lines)
    )
    result = run(
        Trace(Header("nuc", ("nuc", "agx", "orin"), ("pi1", "pi2"), {"cpu": 8}), ticks), closed_loop=closed_loop
    )
    for stream in ("pi1", "pi2"):
        times = [move.time for move in result.moves if move.decision.moves and move.decision.stream == stream]
        assert all(later - earlier >= 30 for earlier, later in pairwise(times))
    assert all(move.decision.reason for move in result.moves)
