"""The offloader's looks and steps against a world in memory: what holds whenever it is killed and whatever fails."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from posture_common.epochs import Assignment
from posture_offloader import records

from posture_edge import load
from tests.support.worlds import READY_AFTER_S, TEMPLATE, World, read_loads

Make = Callable[..., World]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(**more: object) -> World:
        made = World({"nuc": 10, "agx": 10, "orin": 20}, **more)  # type: ignore[arg-type]
        monkeypatch.setattr(load, "read_loads", read_loads(made))
        return made

    return make


def node_of(world: World, stream: str = "pi1") -> str | None:
    owner = world.owner(stream)
    return None if owner is None else owner.node


def test_a_stream_starts_at_home_leaves_it_when_it_is_busy_and_comes_home(world: Make) -> None:
    lab = world()
    lab.run(15)
    assert node_of(lab) == "nuc"
    lab.loads["nuc"] = 75
    lab.run(30)
    assert node_of(lab) == "agx"
    lab.loads["nuc"] = 20
    lab.run(320)
    assert node_of(lab) == "nuc"
    assert [each[1:] for each in lab.owners] == [("nuc", 1), ("agx", 2), ("nuc", 3)]
    assert any("pi1 goes from nuc to agx: nuc is overloaded" in each for each in lab.told)


def test_a_node_where_no_analyzer_gets_ready_is_given_up_and_another_found(world: Make) -> None:
    lab = world(fails={"agx"})
    lab.run(15)
    lab.loads["nuc"] = 75
    lab.run(120)
    assert node_of(lab) == "nuc"  # it never noticed
    lab.run(120)
    assert node_of(lab) == "orin"
    assert any("agx: its analyzer was not ready within 180 s" in each for each in lab.told)


def test_a_killed_analyzer_is_replaced_on_its_node(world: Make) -> None:
    lab = world()
    lab.run(100)
    lab.die("pi1")
    lab.run(10)
    assert [each[1:] for each in lab.owners] == [("nuc", 1), ("nuc", 2)]


def test_a_dead_node_is_left_and_its_stale_analyzer_leaves_when_it_is_back(world: Make) -> None:
    lab = world()
    lab.run(15)
    lab.loads["nuc"] = 75
    lab.run(30)
    lab.not_ready = {"agx"}
    lab.run(60)
    assert node_of(lab) == "orin"
    lab.not_ready = set()
    lab.run(10)
    assert node_of(lab) == "orin"


def test_nothing_moves_and_nothing_stops_while_prometheus_is_away(world: Make) -> None:
    lab = world()
    lab.run(15)
    lab.loads["nuc"], lab.prometheus = 90, False
    lab.run(120)
    assert [each[1:] for each in lab.owners] == [("nuc", 1)]


def test_a_removed_stream_ends_and_is_forgotten_and_a_renamed_one_begins(world: Make) -> None:
    lab = world(streams=("pi1", "pi2"))
    lab.run(15)
    lab.streams = ("pi1", "kitchen")
    lab.run(15)
    assert (node_of(lab, "pi2"), node_of(lab, "kitchen")) == (None, "nuc")
    assert lab.forgotten == ["pi2"]
    assert set(lab.texts) == {"pi1", "kitchen"}


def test_a_person_asks(world: Make) -> None:
    lab = world()
    lab.run(15)
    lab.asked = {"pi1": "orin", "nobody": "agx"}
    lab.run(15)
    assert (node_of(lab), lab.asked) == ("orin", {})
    lab.asked = {"pi1": "nowhere"}
    lab.run(15)
    assert (node_of(lab), lab.asked) == ("orin", {})


def test_a_template_that_is_none_is_told(world: Make) -> None:
    lab = world()
    lab.run(15)
    lab.template = {"kind": "Pod"}
    lab.loads["nuc"] = 75
    lab.run(30)
    assert node_of(lab) == "nuc"
    assert any("ConfigMap posture-job, key posture-job.yaml holds no Job" in each for each in lab.told)


def test_a_changed_template_renews_one_stream_after_the_other_where_it_is(world: Make) -> None:
    lab = world(streams=("pi1", "pi2", "pi3"))
    lab.run(15)
    lab.owners.clear()
    lab.template = {**TEMPLATE, "metadata": {"labels": {"version": "2"}}}
    lab.run(40)
    assert [(node, epoch) for _, node, epoch in lab.owners] == [("nuc", 2)] * 3
    times = [at for at, _, _ in lab.owners]
    assert all(after - before >= READY_AFTER_S for before, after in pairwise(times))
    lab.run(60)
    assert len(lab.owners) == 3


def test_a_template_by_which_no_analyzer_gets_ready_changes_nothing(world: Make) -> None:
    lab = world(streams=("pi1", "pi2"))
    lab.run(15)
    lab.owners.clear()
    lab.fails = {"nuc"}
    lab.template = {**TEMPLATE, "metadata": {"labels": {"version": "2"}}}
    lab.run(1300)
    assert lab.owners == []
    assert {node_of(lab, stream) for stream in lab.streams} == {"nuc"}


def test_a_lost_memory_disturbs_nobody(world: Make) -> None:
    for loss in ({}, {"pi1": "nonsense", "pi2": "{}"}):
        lab = world(streams=("pi1", "pi2"))
        lab.run(15)
        lab.owners.clear()
        lab.texts = dict(loss)
        lab.version = 1 if loss else 0
        lab.run(60)
        assert (lab.owners, set(lab.texts)) == ([], {"pi1", "pi2"})
        assert {node_of(lab, stream) for stream in lab.streams} == {"nuc"}


def test_an_analyzer_that_fails_at_once_is_tried_ever_less_often_and_then_elsewhere(world: Make) -> None:
    lab = world()
    lab.loads = {"nuc": 10, "agx": 95}
    lab.run(100)
    lab.crashes = {"nuc"}
    lab.run(300)
    assert len(lab.analyzers) <= 9
    lab.loads["agx"] = 10
    lab.run(120)
    assert node_of(lab) == "agx"
    assert any("nuc is no place where its analyzer gets ready" in each for each in lab.told)


def test_a_new_stream_that_cannot_start_at_home_starts_elsewhere(world: Make) -> None:
    lab = world(crashes={"nuc"})
    lab.run(60)
    assert node_of(lab) == "agx"


def test_a_stream_whose_job_cannot_be_created_keeps_no_other_back(world: Make) -> None:
    lab = world(streams=("pi1", "pi2", "pi3"), refuses={"pi1"})
    lab.run(15)
    assert [node_of(lab, stream) for stream in lab.streams] == [None, "nuc", "nuc"]
    lab.die("pi3")
    lab.run(15)
    assert node_of(lab, "pi3") == "nuc"
    lab.refuses = set()
    lab.run(15)
    assert node_of(lab, "pi1") == "nuc"


@pytest.mark.parametrize("ready_after_s", [2, 10, 40, 90])
def test_one_move_is_enough_where_one_is_however_long_it_takes(world: Make, ready_after_s: float) -> None:
    lab = world(streams=("pi1", "pi2", "pi3", "pi4"), adds=15)
    lab.loads = {"nuc": 0, "agx": 5, "orin": 5}
    lab.run(15)
    lab.owners.clear()
    lab.loads["nuc"] = 20
    lab.ready_after_s = ready_after_s
    lab.run(280)
    assert len(lab.owners) == 1


def test_many_new_streams_do_not_all_go_to_one_node_while_they_warm_up(world: Make) -> None:
    lab = world(streams=[f"pi{number}" for number in range(6)], adds=15, home=None, ready_after_s=90)
    lab.loads = {"agx": 5, "orin": 5}
    lab.run(150)
    nodes = [node_of(lab, stream) for stream in lab.streams]
    assert nodes.count("agx") <= 3
    assert nodes.count("orin") <= 3


def test_an_evicted_stream_does_not_come_back_to_a_cordoned_node(world: Make) -> None:
    lab = world()
    lab.run(100)
    lab.cordoned = {"nuc"}
    lab.run(10)
    assert node_of(lab) == "nuc"
    lab.die("pi1")
    lab.run(20)
    assert node_of(lab) == "agx"


def test_a_clock_that_was_ahead_blocks_nothing_for_long(world: Make) -> None:
    lab = world()
    lab.run(100)
    lab.now -= 3600
    lab.not_ready = {"nuc"}
    lab.run(60)
    assert node_of(lab) == "agx"


def test_no_job_is_thrown_at_a_node_that_is_not_ready(world: Make) -> None:
    lab = world()
    lab.loads = {"nuc": 10}
    lab.run(100)
    lab.not_ready = {"nuc"}
    lab.run(300)
    assert len(lab.analyzers) == 1


@settings(max_examples=60, deadline=None)
@given(kill_at=st.integers(1, 40), again=st.integers(1, 10), dies=st.booleans())
def test_whenever_it_is_killed_it_goes_on_and_epochs_only_grow(kill_at: int, again: int, dies: bool) -> None:
    lab = World({"nuc": 10, "agx": 10, "orin": 20}, streams=("pi1", "pi2"), kill_at=kill_at)
    with mock.patch.object(load, "read_loads", read_loads(lab)):
        lab.run(15)
        lab.loads["nuc"] = 75
        lab.run(6)
        lab.kill_at = lab.done + again
        if dies:
            lab.die("pi1")
        lab.run(120)
    assert {node_of(lab, "pi1"), node_of(lab, "pi2")} <= {"agx", "orin"}
    for epochs in lab.history.values():
        assert epochs == sorted(set(epochs))
    running = [each for each in lab.analyzers.values() if not each.finished]
    assert len(running) == 2


@pytest.mark.parametrize("epoch", [10**9, 10**9 - 1, 5 * 10**8, 10**6 + 1])
@pytest.mark.parametrize("when", ["before the first look", "meanwhile"])
def test_an_epoch_that_nobody_can_have_reached_is_neither_followed_nor_remembered(
    world: Make, epoch: int, when: str
) -> None:
    lab = world()
    if when == "meanwhile":
        lab.run(30)
    lab.assignments["pi1"] = Assignment(epoch=epoch, node="orin")
    lab.run(60)
    assert node_of(lab) == "nuc"
    assert lab.assignments["pi1"].epoch < 10
    assert records.read("pi1", lab.texts["pi1"]).last_epoch < 10
    lab.loads["nuc"] = 75
    lab.run(30)
    assert node_of(lab) == "agx"


def test_a_record_with_such_an_epoch_is_begun_anew(world: Make) -> None:
    lab = world()
    lab.run(30)
    record = records.read("pi1", lab.texts["pi1"])
    lab.texts["pi1"] = records.write(replace(record, last_epoch=10**18))
    lab.version += 1
    lab.run(60)
    assert node_of(lab) == "nuc"
    assert records.read("pi1", lab.texts["pi1"]).last_epoch < 10
