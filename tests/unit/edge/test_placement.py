"""The policy: tables of single ticks, and what holds whatever happens."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posture_edge.placement import (
    WINDOW,
    Decision,
    Limits,
    Node,
    Placement,
    Plan,
    Settings,
    Snapshot,
    State,
    Word,
    choose,
    judge,
    plan,
)

TICK_S = 3.0
SETTINGS = Settings(stream_load={"cpu": 10})
GONE: dict[str, Any] = {"ready": False}


def node(name: str, cpu: float = 10, **more: Any) -> Node:
    return Node(name, {"cpu": cpu}, **more)


def run(*pictures: list[Node], state: State | None = None, home: str | None = "nuc", **more: Any) -> Plan:
    """Plan one tick after the other; `more` goes into each snapshot, `settings` apart."""
    settings = more.pop("settings", SETTINGS)
    streams = more.pop("streams", ["pi1"])
    start = more.pop("start", 1000.0)
    planned = None
    for number, nodes in enumerate(pictures):
        planned = plan(Snapshot(start + number * TICK_S, nodes, streams, home, **more), state or State(), settings)
        state = planned.state
    assert planned is not None
    return planned


def only(planned: Plan) -> Decision:
    (decision,) = planned.decisions
    return decision


def on(name: str, **more: Any) -> State:
    return State(placements={"pi1": Placement(name, 0.0, **more)})


@pytest.mark.parametrize(
    ("nodes", "home", "expected"),
    [
        pytest.param([node("nuc", 40), node("agx", 1)], "nuc", "nuc", id="home has room"),
        pytest.param([node("nuc", 60), node("agx", 1)], "nuc", "agx", id="home is too busy"),
        pytest.param([node("nuc", 55), node("agx", 1)], "nuc", "agx", id="home would be made too busy"),
        pytest.param([node("nuc", 60), node("agx", 30), node("orin", 20)], "nuc", "orin", id="the least loaded worker"),
        pytest.param([node("nuc", 60), node("orin"), node("agx")], "nuc", "agx", id="equal load: by name"),
        pytest.param([node("nuc", 90), node("agx", 90)], "nuc", "nuc", id="no room anywhere: home"),
        pytest.param([node("nuc", 90), node("agx", 51)], "nuc", "nuc", id="no room for one more: home"),
        pytest.param([node("agx", 90)], None, None, id="no room and no home: waits"),
        pytest.param([node("nuc", **GONE), node("agx", 90)], "nuc", None, id="a dead home takes nothing"),
        pytest.param([node("nuc", 90, cordoned=True), node("agx", 90)], "nuc", None, id="nor does a cordoned one"),
        pytest.param([node("agx", 1, unknown="no gpu"), node("orin", 40)], None, "orin", id="unknown is not idle"),
        pytest.param([Node("agx"), node("orin", 40)], None, "orin", id="no load at all is not idle"),
        pytest.param([node("agx", 1, cordoned=True), node("orin", 40)], None, "orin", id="cordoned"),
        pytest.param([node("agx", 1, tainted=True), node("orin", 40)], None, "orin", id="tainted"),
        pytest.param([node("agx", 1, **GONE), node("orin", 40)], None, "orin", id="not Ready"),
        pytest.param([node("agx", 20)], "nuc", "agx", id="home is gone altogether"),
    ],
)
def test_first_placement(nodes: list[Node], home: str | None, expected: str | None) -> None:
    decision = only(run(nodes, home=home))
    assert (decision.node, decision.previous) == (expected, None)
    assert decision.reason


BUSY = [node("nuc", 70), node("agx")]
FREE = [node("nuc", 30), node("agx")]
MIDDLE = [node("nuc", 55), node("agx")]


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([BUSY] * 2, "nuc"),
        ([BUSY] * 3, "agx"),
        ([BUSY, FREE, BUSY, FREE, BUSY], "agx"),
        ([BUSY, BUSY, FREE, FREE, FREE], "nuc"),
        ([[node("nuc", 60), node("agx")]] * 3, "agx"),
        ([[node("nuc", 59.9), node("agx")]] * 5, "nuc"),
        ([[node("nuc", 70), node("agx", 60)]] * 5, "nuc"),
        ([[node("nuc", 70), node("agx", 1, unknown="stale")]] * 5, "nuc"),
        ([[node("nuc", 70, cordoned=True), node("agx", 70)]] * 5, "nuc"),
    ],
)
def test_home_is_left_when_it_was_too_busy_in_3_of_5_samples(pictures: list[list[Node]], expected: str) -> None:
    assert only(run(*pictures, state=on("nuc"))).node == expected


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([FREE] * 4, "agx"),
        ([FREE] * 5, "nuc"),
        ([FREE, FREE, MIDDLE, FREE, FREE], "agx"),
        ([[node("nuc", 50), node("agx")]] * 5, "agx"),
        ([[node("nuc", 49.9), node("agx")]] * 5, "nuc"),
        ([[node("nuc", 30, cordoned=True), node("agx")]] * 5, "agx"),
        ([[node("nuc", 30, unknown="no gpu"), node("agx")]] * 5, "agx"),
    ],
)
def test_home_is_found_again_when_it_was_free_in_5_of_5_samples(pictures: list[list[Node]], expected: str) -> None:
    assert only(run(*pictures, state=on("agx"))).node == expected


def test_home_that_the_stream_itself_would_make_too_busy_is_not_free() -> None:
    free = [node("nuc", 49), node("agx")]
    assert only(run(*[free] * 5, state=on("agx"), settings=Settings(stream_load={"cpu": 11}))).node == "agx"


def test_a_tainted_home_is_never_used() -> None:
    assert only(run([node("nuc", 1, tainted=True), node("agx", 50)], home=None)).node is None


def test_a_stream_leaves_a_home_that_was_tainted_and_stays_where_no_other_has_room() -> None:
    decision = only(run([node("nuc", tainted=True), node("agx")], state=on("nuc")))
    assert (decision.node, decision.reason.partition(";")[0]) == ("agx", "nuc is tainted")
    assert only(run([node("nuc", tainted=True), node("agx", 90)], state=on("nuc"))).node == "nuc"


@pytest.mark.parametrize("gone", [[node("agx"), node("nuc", **GONE)], [node("agx")]], ids=["not Ready", "absent"])
def test_a_stream_leaves_a_node_that_is_gone(gone: list[Node]) -> None:
    decision = only(run(gone, state=on("nuc")))
    assert decision.moves
    assert (decision.previous, decision.node) == ("nuc", "agx")


def test_streams_of_a_dead_node_stay_where_no_node_has_room_and_home_takes_them_before() -> None:
    assert only(run([node("agx", **GONE), node("nuc", 95)], state=on("agx"))).node == "nuc"
    waiting = only(run([node("agx", **GONE), node("orin", 95)], state=on("agx"), home=None))
    assert waiting.node == "agx"
    assert "waits" in waiting.reason


def test_one_stream_leaves_a_node_at_a_tick_and_its_load_gets_time_to_go() -> None:
    state = State(placements={f"pi{number}": Placement("nuc", float(number)) for number in range(4)})
    streams = list(state.placements)
    busy = [node("nuc", 95), node("agx", 1)]
    moved = []
    for ticks in range(1, 7):
        planned = run(*[busy] * ticks, state=state, streams=streams)
        moved.append([decision.stream for decision in planned.decisions if decision.moves])
    assert moved == [[], [], ["pi0"], [], [], ["pi1"]]


def test_a_target_counts_the_streams_that_came_within_a_minute() -> None:
    placements = {f"pi{number}": Placement("agx", 950.0) for number in range(4)}
    assert only(run([node("agx", 10)], home=None, state=State(placements=placements))).node == "agx"
    placements["pi4"] = Placement("agx", 950.0)
    crowded = run([node("agx", 10)], home=None, state=State(placements=placements), streams=["pi9", *placements])
    assert crowded.decisions[-1].node is None
    assert "the 5 that came just now" in crowded.verdicts["agx"].reason
    settled = {name: Placement("agx", 900.0) for name in placements}
    assert (
        run([node("agx", 10)], home=None, state=State(placements=settled), streams=["pi9", *settled]).decisions[-1].node
    )


def test_a_node_takes_no_more_streams_than_it_may() -> None:
    settings = replace(SETTINGS, streams_per_node=1)
    planned = run([node("nuc"), node("agx")], streams=["pi1", "pi2", "pi3"], settings=settings)
    assert [decision.node for decision in planned.decisions] == ["nuc", "agx", None]


def test_cooldown_holds_even_off_a_dead_node() -> None:
    moved = Placement("agx", 990.0, moved=True)
    nodes = [node("agx", **GONE), node("nuc")]
    assert only(run(nodes, state=State(placements={"pi1": moved}))).node == "agx"
    assert only(run(nodes, state=State(placements={"pi1": moved}), start=1020.0)).node == "nuc"


def test_a_stream_stays_away_from_home_longer_each_time_that_home_dies_under_it() -> None:
    dead = [node("nuc", **GONE), node("agx")]
    state, start, waited = on("nuc"), 0.0, []
    for _ in range(6):
        planned = run(dead, state=state, start=start)
        placement = planned.state.placements["pi1"]
        waited.append(placement.barred["nuc"] - start)
        start += placement.home_hold_s + 1
        planned = run(*[FREE] * WINDOW, state=replace(planned.state, histories={}), start=start)
        assert only(planned).node == "nuc"
        state, start = planned.state, start + 100
    assert waited == [300, 600, 1200, 2400, 3600, 3600]


def test_a_stream_that_came_home_stays_for_a_while() -> None:
    home = on("nuc", came_home=900.0)
    assert only(run(*[BUSY] * 5, state=home)).node == "nuc"
    assert only(run(*[BUSY] * 5, state=home, start=1200.0)).node == "agx"


def test_without_prometheus_nothing_moves_and_a_new_stream_starts_at_home() -> None:
    planned = run(
        *[[node("nuc", 95), node("agx", **GONE)]] * 5,
        state=State(placements={"pi1": Placement("agx", 0.0)}),
        streams=["pi1", "pi2"],
        prometheus=False,
    )
    assert [decision.node for decision in planned.decisions] == ["agx", "nuc"]
    assert planned.state.histories["nuc"].samples == ()


def test_a_stream_that_is_no_longer_wanted_is_forgotten() -> None:
    assert run([node("nuc")], state=on("nuc"), streams=[]).state.placements == {}


@pytest.mark.parametrize(
    ("candidate", "word", "said"),
    [
        (node("agx", 10), Word.TARGET, "cpu 10 % of 60 %"),
        (node("agx", 55), Word.NO_ROOM, "one more stream would make cpu 65 %"),
        (node("agx", 60), Word.BUSY, "cpu 60 % of 60 %"),
        (node("agx", 10, unknown="gpu is 12 s old"), Word.UNKNOWN, "gpu is 12 s old"),
        (node("agx", 10, cordoned=True), Word.CORDONED, "cordoned"),
        (node("agx", 10, tainted=True), Word.TAINTED, "taint"),
        (node("agx", 10, **GONE), Word.NOT_READY, "not Ready"),
        (Node("agx", {"cpu": 10, "memory": 90}), Word.BUSY, "memory 90 % of 90 %"),
    ],
)
def test_each_verdict_says_why(candidate: Node, word: Word, said: str) -> None:
    verdict = judge([candidate], SETTINGS)["agx"]
    assert verdict.word is word
    assert said in verdict.reason


# What holds whatever happens

names = ("nuc", "agx", "orin", "nano")
loads = st.dictionaries(st.sampled_from(["gpu", "cpu", "memory"]), st.floats(0, 100), max_size=3)
nodes = st.lists(
    st.builds(
        Node,
        st.sampled_from(names),
        loads,
        unknown=st.sampled_from([None, None, None, "stale"]),
        ready=st.sampled_from([True, True, True, False]),
        cordoned=st.sampled_from([False, False, False, True]),
    ),
    unique_by=lambda each: each.name,
)
pictures = st.lists(nodes, min_size=1, max_size=12)
homes = st.sampled_from(["nuc", None])
STREAMS = ["pi1", "pi2", "pi3"]


@given(pictures, homes)
def test_only_a_target_is_chosen_unless_it_is_the_last_resort(seen: list[list[Node]], home: str | None) -> None:
    state = State()
    for number, picture in enumerate(seen):
        planned = run(picture, state=state, home=home, streams=STREAMS, start=number * TICK_S)
        state = planned.state
        for decision in planned.decisions:
            if decision.node is None or decision.node == decision.previous:
                continue
            verdict = planned.verdicts[decision.node]
            assert verdict.word is Word.TARGET or (
                decision.node == home and verdict.word not in (Word.CORDONED, Word.NOT_READY)
            )


@given(pictures, homes)
def test_each_stream_gets_one_decision_with_a_reason(seen: list[list[Node]], home: str | None) -> None:
    planned = run(*seen, home=home, streams=STREAMS)
    assert [decision.stream for decision in planned.decisions] == STREAMS
    assert all(decision.reason for decision in planned.decisions)
    off = Counter(decision.previous for decision in planned.decisions if decision.moves)
    assert not off or max(off.values()) == 1


@given(pictures, homes, st.randoms(use_true_random=False))
def test_the_order_of_nodes_and_streams_changes_nothing(seen: list[list[Node]], home: str | None, chance: Any) -> None:
    shuffled = [chance.sample(picture, len(picture)) for picture in seen]
    streams = chance.sample(STREAMS, len(STREAMS))
    assert run(*seen, home=home, streams=STREAMS).decisions == run(*shuffled, home=home, streams=streams).decisions


@given(nodes, homes, st.sampled_from(names), st.floats(0, 100))
def test_more_load_never_makes_a_node_the_chosen_one(
    seen: list[Node], home: str | None, name: str, more: float
) -> None:
    def loaded(each: Node) -> Node:
        return replace(each, loads={metric: min(100.0, load + more) for metric, load in each.loads.items()})

    before = choose(judge(seen, SETTINGS), home)
    after = choose(judge([loaded(each) if each.name == name else each for each in seen], SETTINGS), home)
    if after and after.node == name:
        assert before
        assert before.node == name


@given(nodes, homes)
@settings(max_examples=40)
def test_a_constant_picture_settles(seen: list[Node], home: str | None) -> None:
    planned = run(*[seen] * 100, home=home, streams=STREAMS)
    later = run(*[seen] * 40, home=home, streams=STREAMS, state=planned.state, start=1000 + 100 * TICK_S)
    assert {each.stream: each.node for each in planned.decisions} == {
        each.stream: each.node for each in later.decisions
    }


def test_limits_are_the_metric_s_own() -> None:
    settings = Settings(limits={"cpu": Limits(30, 20)}, stream_load={})
    assert judge([node("agx", 30)], settings)["agx"].word is Word.BUSY


def test_a_stream_of_a_dead_node_goes_back_to_one_that_it_left_only_where_there_is_no_other() -> None:
    left = Placement("orin", 900.0, moved=True, barred={"agx": 1200.0})
    picture = [node("agx", 10), node("orin", **GONE), node("nano", 40)]
    assert only(run(picture, state=State(placements={"pi1": left}), home=None)).node == "nano"
    assert only(run(picture[:2], state=State(placements={"pi1": left}), home=None)).node == "agx"
    left = replace(left, barred={"nuc": 1200.0})
    picture = [node("nuc", 10), node("orin", **GONE), node("nano", 40)]
    assert only(run(picture, state=State(placements={"pi1": left}))).node == "nano"


def test_an_overloaded_worker_is_left_for_home_where_only_that_has_room() -> None:
    # Not below `low`, so home would not be gone to without need.
    picture = [Node("nuc", {"cpu": 10, "memory": 85}), node("agx", 90)]
    assert only(run(*[picture] * WINDOW, state=on("agx"))).node == "nuc"
    assert only(run(BUSY, *[picture] * (WINDOW - 1), state=on("agx"))).node == "agx"
    assert only(run(*[picture] * WINDOW, state=on("agx", barred={"nuc": 2000.0}))).node == "agx"
    assert only(run(*[[*picture, node("orin", 40)]] * WINDOW, state=on("agx"))).node == "orin"


def test_a_node_that_is_seen_to_be_too_busy_is_left_whatever_else_is_not_known_of_it() -> None:
    planned = run(*[[node("nuc", 90, unknown="no gpu"), node("agx")]] * 3, state=on("nuc"))
    assert only(planned).node == "agx"
    assert planned.verdicts["nuc"].word is Word.UNKNOWN
    assert "no gpu; too busy in 3 of 5" in planned.verdicts["nuc"].reason


def test_who_waits_for_prometheus_is_told_so() -> None:
    assert "Prometheus does not answer" in only(run([node("agx")], home=None, prometheus=False)).reason


def test_a_home_that_was_busy_once_and_calm_for_long_is_not_held_against_it() -> None:
    came = Placement("nuc", 1000.0, moved=True, came_home=1000.0, regrets=True, home_hold_s=300.0)
    kept = run([node("nuc", 30), node("agx")], state=State(placements={"pi1": came}), start=1590.0)
    assert kept.state.placements["pi1"].regrets
    kept = run([node("nuc", 30), node("agx")], state=State(placements={"pi1": came}), start=1610.0)
    assert not kept.state.placements["pi1"].regrets
