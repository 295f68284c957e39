"""What follows from what an analyzer has heard of its stream's epochs."""

import json

import pytest
from posture_analyzer.epochs import Heard, Step
from posture_common.epochs import Assignment, MalformedError, State

NODE = "agx"


def assignment(epoch: object, node: object = NODE, **more: object) -> tuple[str, bytes]:
    return "assignment", json.dumps({"epoch": epoch, "node": node} | more).encode()


def status(epoch: int, state: str, node: object = NODE) -> tuple[str, bytes]:
    return f"{epoch}/status", json.dumps({"epoch": epoch, "node": node, "state": state}).encode()


def heard(*messages: tuple[str, bytes], epoch: int = 4) -> Heard:
    known = Heard(epoch=epoch)
    for topic, payload in messages:
        known = known.on_message(topic, payload)
    return known


@pytest.mark.parametrize(
    ("messages", "assigned_s", "step"),
    [
        ([], 0, Step.WAIT),
        ([assignment(3)], 99, Step.WAIT),
        ([assignment(4)], 0, Step.CONNECT),
        ([assignment(5)], 0, Step.LEAVE),
        ([assignment(5, None)], 0, Step.LEAVE),
        ([assignment(3, None)], 0, Step.WAIT),
        ([assignment(4), status(3, "active")], 0, Step.WAIT),
        ([assignment(4), status(3, "draining")], 4.9, Step.WAIT),
        ([assignment(4), status(3, "active")], 5, Step.CONNECT),
        ([assignment(4), status(3, "done")], 0, Step.CONNECT),
        ([assignment(4), status(3, "gone")], 0, Step.CONNECT),
        ([assignment(4), status(3, "ready"), status(2, "warming")], 0, Step.CONNECT),
        ([assignment(4), status(3, "done"), status(2, "active")], 0, Step.WAIT),
        ([assignment(4), status(5, "active")], 0, Step.CONNECT),
        ([assignment(4), status(4, "active")], 0, Step.CONNECT),
        ([assignment(4), status(3, "active"), status(3, "done")], 0, Step.CONNECT),
        ([assignment(4), status(3, "active"), ("3/status", b"")], 0, Step.CONNECT),
        ([assignment(5), status(3, "active")], 0, Step.LEAVE),
    ],
)
def test_what_to_do(messages: list[tuple[str, bytes]], assigned_s: float, step: Step) -> None:
    assert heard(*messages).step(assigned_s=assigned_s) is step


@pytest.mark.parametrize(
    ("messages", "newest"),
    [
        ([assignment(4), assignment(3)], 4),  # a broker that came back with an old store
        ([assignment(3), assignment(4)], 4),
        ([assignment(4), ("assignment", b"")], 4),
        ([assignment(4, more="to come")], 4),
    ],
)
def test_the_newest_assignment_counts(messages: list[tuple[str, bytes]], newest: int) -> None:
    assert heard(*messages).assignment == Assignment(epoch=newest, node=NODE)


def test_an_assignment_outlives_its_connection_and_what_others_said_does_not() -> None:
    known = heard(assignment(4), status(3, "active")).without_states()
    assert known.step(assigned_s=0) is Step.CONNECT
    assert known.assigned
    assert not known.states


def test_the_successor_is_of_a_newer_epoch() -> None:
    assert heard(assignment(4)).successor is None
    assert heard(assignment(5)).successor == Assignment(epoch=5, node=NODE)


@pytest.mark.parametrize(
    "message",
    [
        ("assignment", b"agx"),
        ("assignment", b"\xff"),
        ("assignment", b"[" * 5000),
        ("assignment", b"4"),
        ("assignment", b'{"node": "agx"}'),
        ("assignment", b'{"epoch": 5}'),
        assignment(4, None),
        assignment(5, ""),
        assignment(5, 7),
        assignment(0),
        assignment(-5),
        assignment("5"),
        assignment(5.5),
        assignment(True),
        ("3/status", b"active"),
        status(3, "asleep"),
        status(3, "active", node=None),
        status(0, "active"),
        status(10**9 + 1, "active"),
        status(10**18, "active"),
        (f"{'9' * 5000}/status", b"{}"),
        ("03/status", status(3, "active")[1]),
        assignment(10**9 + 1),
        assignment(10**18),
        ("assignment", b'{"node": "agx", "epoch": ' + b"9" * 4000 + b"}"),
        ("assignment", b'{"node": "agx", "epoch": 1e400}'),
        ("assignment", assignment(5)[1] + b" " * 10_000_000),
        assignment(5, "n" * 254),
        status(3, "active", node="n" * 254),
    ],
)
def test_what_means_nothing_changes_nothing(message: tuple[str, bytes]) -> None:
    known = heard(assignment(3), status(2, "active"))
    with pytest.raises(MalformedError) as error:
        known.on_message(*message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("topic", ["", "assignment/4", "x/status", "-3/status", "3/status/x", "3", "frame"])
def test_other_topics_are_not_read(topic: str) -> None:
    assert heard().on_message(topic, b"x") == heard()


def test_states_are_kept_by_the_topics_epoch() -> None:
    known = heard(status(3, "active"), status(2, "done"), status(3, "draining"))
    assert known.states == {3: State.DRAINING, 2: State.DONE}
