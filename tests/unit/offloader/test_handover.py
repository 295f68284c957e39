"""A stream's steps: tables of what is remembered and seen, and what is to be done."""

from dataclasses import replace
from typing import Any

import pytest
from posture_common.epochs import Assignment, State
from posture_offloader import records
from posture_offloader.handover import (
    BARRED_S,
    GONE_S,
    LEAVE_S,
    SETTLED_S,
    Job,
    Placed,
    Record,
    Seen,
    Step,
    Wanted,
    asked,
    refused,
    retire,
    step,
)

from posture_edge.placement import Placement

NOW = 10_000.0
TIMEOUT_S = 180.0
ON_NUC = Placed(3, "nuc", NOW - 1000, "it starts at home")
TO_AGX = Placed(4, "agx", NOW - 5, "nuc is overloaded")
SETTLED = Record(assigned=ON_NUC, last_epoch=3, policy=Placement("nuc", NOW - 1000))
MOVING = Record(
    assigned=ON_NUC,
    pending=TO_AGX,
    last_epoch=4,
    policy=Placement("agx", NOW - 5, moved=True, barred={"nuc": NOW + 295}),
)
RUNS, ENDED = Job(), Job(finished=True)


def go(record: Record, wanted: str | None, **more: Any) -> Step:
    """Take a step; `more` is what is seen, and `now` and `watched_since` where they matter."""
    times = {"now": more.pop("now", NOW), "watched_since": more.pop("watched_since", 0.0)}
    return step(record, Seen(**more), Wanted(wanted, "because"), ready_timeout_s=TIMEOUT_S, **times)


def test_a_changed_template_makes_the_next_epoch_on_the_same_node() -> None:
    seen = Seen(jobs={3: RUNS}, states={3: State.ACTIVE})
    changed = Wanted("nuc", "because", "new", renew=True)
    done = step(SETTLED, seen, changed, now=NOW, ready_timeout_s=TIMEOUT_S)
    assert done.create == Placed(4, "nuc", NOW, "what its Job is made of has changed", "new")
    assert step(SETTLED, seen, replace(changed, renew=False), now=NOW, ready_timeout_s=TIMEOUT_S) == Step(SETTLED)
    same = replace(SETTLED, assigned=replace(ON_NUC, template="new"))
    assert step(same, seen, changed, now=NOW, ready_timeout_s=TIMEOUT_S) == Step(same)


def test_one_that_is_not_ready_is_made_anew_when_the_template_changes() -> None:
    seen = Seen(jobs={3: RUNS, 4: RUNS}, states={3: State.ACTIVE})
    done = step(MOVING, seen, Wanted("agx", "because", "new"), now=NOW, ready_timeout_s=TIMEOUT_S)
    assert (done.create, done.delete) == (Placed(5, "agx", NOW, "because", "new"), (4,))
    ready = replace(seen, states={3: State.ACTIVE, 4: State.READY})
    done = step(MOVING, ready, Wanted("agx", "because", "new"), now=NOW, ready_timeout_s=TIMEOUT_S)
    assert done.record.assigned == replace(TO_AGX, since=NOW)


def test_a_new_stream_gets_a_job_of_its_first_epoch() -> None:
    done = go(Record(), "nuc")
    assert done.create == Placed(1, "nuc", NOW, "because")
    assert done.record == Record(pending=done.create, last_epoch=1)


def test_a_stream_that_waits_gets_none() -> None:
    assert go(Record(), None) == Step(Record())


def test_a_settled_stream_is_left_alone() -> None:
    assert go(SETTLED, "nuc", jobs={3: RUNS}, states={3: State.ACTIVE}) == Step(SETTLED)


def test_a_stream_that_is_wanted_elsewhere_gets_a_job_there_and_keeps_the_one_it_has() -> None:
    done = go(SETTLED, "agx", jobs={3: RUNS}, states={3: State.ACTIVE})
    assert done.create == Placed(4, "agx", NOW, "because")
    assert (done.record.assigned, done.delete) == (ON_NUC, ())


@pytest.mark.parametrize("state", [None, State.WARMING, State.GONE])
def test_a_pending_epoch_is_waited_for(state: State | None) -> None:
    states = {3: State.ACTIVE} | ({4: state} if state else {})
    assert go(MOVING, "agx", jobs={3: RUNS, 4: RUNS}, states=states) == Step(MOVING)


def test_a_job_that_was_not_created_yet_is_created() -> None:
    assert go(MOVING, "agx", jobs={3: RUNS}, states={3: State.ACTIVE}).create == TO_AGX


def test_a_ready_one_is_assigned() -> None:
    done = go(MOVING, "agx", jobs={3: RUNS, 4: RUNS}, states={3: State.ACTIVE, 4: State.READY})
    assert done.record.assigned == replace(TO_AGX, since=NOW)
    assert done.record.pending is None
    assert (done.create, done.delete, done.forget) == (None, (), ())


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        ({"jobs": {3: RUNS, 4: ENDED}}, "agx: its analyzer ended before it was ready"),
        ({"jobs": {3: RUNS, 4: Job(True, "exit code 78: wrong password")}}, "agx: exit code 78: wrong password"),
        (
            {"jobs": {3: RUNS, 4: Job(False, "ImagePullBackOff: no such image")}, "now": NOW + TIMEOUT_S},
            "agx: its analyzer was not ready within 180 s: ImagePullBackOff: no such image",
        ),
    ],
    ids=["ended", "failed", "late"],
)
def test_one_that_fails_goes_and_the_former_one_never_notices(seen: dict[str, Any], problem: str) -> None:
    now = seen.get("now", NOW)
    done = go(MOVING, "agx", states={3: State.ACTIVE}, **seen)
    assert (done.record.assigned, done.record.pending, done.record.problem) == (ON_NUC, None, problem)
    assert done.delete == (() if seen["jobs"][4].finished else (4,))
    assert done.record.policy == Placement("nuc", now, moved=True, barred={"agx": now + BARRED_S})
    assert done.record.retry_at > now


def test_lateness_counts_from_when_the_broker_could_be_heard() -> None:
    seen: dict[str, Any] = {"jobs": {3: RUNS, 4: RUNS}, "states": {3: State.ACTIVE, 4: State.WARMING}}
    assert go(MOVING, "agx", now=NOW + 200, watched_since=NOW + 190, **seen).record.pending == TO_AGX
    assert go(MOVING, "agx", now=NOW + 200, **seen).record.pending is None


def test_one_that_is_not_wanted_there_any_more_goes_and_the_stream_stays_or_goes_elsewhere() -> None:
    seen: dict[str, Any] = {"jobs": {3: RUNS, 4: RUNS}, "states": {3: State.ACTIVE, 4: State.READY}}
    back = go(MOVING, "nuc", **seen)
    assert (back.record.assigned, back.record.pending, back.delete, back.create) == (ON_NUC, None, (4,), None)
    on = go(MOVING, "orin", **seen)
    assert (on.create, on.delete) == (Placed(5, "orin", NOW, "because"), (4,))


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {"jobs": {3: ENDED}},
        {"jobs": {3: RUNS}, "states": {3: State.GONE}, "said_at": {3: NOW - GONE_S - 1}},
    ],
    ids=["Job deleted", "Job ended", "not heard of"],
)
def test_a_dead_analyzer_is_replaced_at_once_where_it_lived_long(seen: dict[str, Any]) -> None:
    done = go(SETTLED, "nuc", **seen)
    assert done.create is not None
    assert (done.create.epoch, done.create.node) == (4, "nuc")


def test_one_that_is_silent_for_a_moment_is_not_replaced() -> None:
    seen: dict[str, Any] = {"jobs": {3: RUNS}, "states": {3: State.GONE}, "said_at": {3: NOW - GONE_S + 1}}
    assert go(SETTLED, "nuc", **seen) == Step(SETTLED)


def test_one_that_dies_early_is_replaced_ever_later_and_that_is_forgotten_when_one_lasts() -> None:
    record, now, waits = replace(SETTLED, assigned=replace(ON_NUC, since=NOW)), NOW, []
    for number in range(3, 12):
        now += 1
        record = go(record, "nuc", now=now, jobs={number: ENDED}).record
        waits.append(record.retry_at - now)
        assert record.pending is None
        assert go(record, "nuc", now=record.retry_at - 0.1, jobs={number: ENDED}).record == record
        now = record.retry_at
        record = go(record, "nuc", now=now, jobs={number: ENDED}).record
        assert record.pending is not None
        record = go(record, "nuc", now=now, jobs={number + 1: RUNS}, states={number + 1: State.READY}).record
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert go(record, "nuc", now=now + SETTLED_S + 1, jobs={12: RUNS}).record.failures == 0


def test_the_replaced_one_has_time_to_leave_and_not_for_ever() -> None:
    record = replace(MOVING, assigned=replace(TO_AGX, since=NOW), pending=None)
    seen: dict[str, Any] = {"jobs": {3: RUNS, 4: RUNS}, "states": {3: State.ACTIVE, 4: State.ACTIVE}}
    assert go(record, "agx", **seen).delete == ()
    assert go(record, "agx", now=NOW + LEAVE_S + 1, **seen).delete == (3,)


def test_states_of_jobs_that_are_gone_are_forgotten() -> None:
    record = replace(MOVING, assigned=TO_AGX, pending=None)
    assert go(record, "agx", jobs={4: RUNS}, states={1: State.GONE, 3: State.DONE, 4: State.ACTIVE}).forget == (1, 3)
    assert go(record, "agx", jobs={3: ENDED, 4: RUNS}, states={3: State.DONE, 4: State.ACTIVE}).forget == ()


@pytest.mark.parametrize(
    "seen", [{"jobs": {7: RUNS}}, {"states": {7: State.ACTIVE}}, {"assignment": Assignment(epoch=7, node="agx")}]
)
def test_epochs_grow_even_where_what_was_remembered_is_lost(seen: dict[str, Any]) -> None:
    done = go(Record(), "nuc", **seen)
    assert done.create is not None
    assert done.create.epoch == 8


def test_a_job_that_the_cluster_refuses_is_not_asked_for_again_at_once() -> None:
    done = go(SETTLED, "agx", jobs={3: RUNS})
    record = refused(done.record, "no container", now=NOW)
    assert (record.assigned, record.pending, record.problem) == (ON_NUC, None, "agx: no container")
    assert go(record, "agx", jobs={3: RUNS}).create is None


def test_a_stream_that_is_not_wanted_any_more_is_ended_by_an_assignment_without_a_node() -> None:
    first, ended = retire(MOVING, Seen(jobs={3: RUNS, 4: RUNS}, states={3: State.ACTIVE}), now=NOW)
    assert first.record.assigned is not None
    assert (first.record.assigned.epoch, first.record.assigned.node, first.record.pending) == (5, "", None)
    assert (first.delete, ended) == ((), False)
    again, ended = retire(first.record, Seen(jobs={3: RUNS, 4: ENDED}), now=NOW + LEAVE_S + 1)
    assert (again.record, again.delete, ended) == (first.record, (3,), False)
    assert retire(first.record, Seen(jobs={3: ENDED}), now=NOW + 1)[1]


def test_one_that_is_wanted_again_meanwhile_goes_on_with_the_next_epoch() -> None:
    ending = retire(SETTLED, Seen(jobs={3: RUNS}), now=NOW)[0].record
    done = go(ending, "nuc", jobs={3: ENDED})
    assert done.create is not None
    assert done.create.epoch == 5


def test_a_person_may_ask() -> None:
    record = asked(SETTLED, "orin", now=NOW)
    assert record.policy == Placement("orin", NOW, moved=True, barred={"nuc": NOW + BARRED_S})
    assert asked(SETTLED, "nuc", now=NOW) == SETTLED
    assert asked(Record(), "orin", now=NOW).policy == Placement("orin", NOW)


def test_records_are_read_as_they_were_written() -> None:
    for record in (Record(), SETTLED, MOVING, replace(MOVING, problem="agx: late", failures=2, retry_at=NOW)):
        assert records.read("pi1", records.write(record)) == record


@pytest.mark.parametrize("text", ["", "{", "[]", '{"assigned": 1, "pending": null, "policy": null}'])
def test_a_damaged_record_is_named(text: str) -> None:
    with pytest.raises(records.RecordError, match=r"^ConfigMap posture-placements: pi1: "):
        records.read("pi1", text)
