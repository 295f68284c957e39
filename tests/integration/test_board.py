"""The offloader's side of a real broker: what is retained there, kept right whatever the broker forgets."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from posture_common.epochs import Assignment, State
from posture_common.mqtt import Broker as Address
from posture_common.mqtt import Connection
from posture_common.service import Stop
from posture_offloader.board import STATUS_TOPIC, Board

from tests.support.brokers import ADMIN, OFFLOADER, Broker
from tests.support.sessions import find_session
from tests.support.waiting import wait_until


@contextmanager
def board(broker: Broker, *, password: str = "") -> Iterator[Board]:
    """A board, connected unless it cannot be."""
    address = Address(
        host="127.0.0.1", port=broker.port, user=OFFLOADER, password=password or broker.passwords[OFFLOADER]
    )
    with Board(address, Stop(), changed=threading.Event().set, clock=time.time) as kept:
        wait_until(lambda: kept.synced_since or kept.failure, timeout=10, describe="it is connected or refused")
        yield kept


@contextmanager
def admin(broker: Broker, *topics: str) -> Iterator[Connection]:
    address = Address(host="127.0.0.1", port=broker.port, user=ADMIN, password=broker.passwords[ADMIN])
    with Connection(address, client_id="admin", topics=topics) as connection:
        yield connection


def say(broker: Broker, topic: str, payload: str) -> None:
    """Retain a message."""
    with admin(broker) as connection:
        connection.publish(topic, payload, retain=True).result(5)


def retained(broker: Broker, *topics: str) -> dict[str, str]:
    """Return what is retained on the topics."""
    found = {}
    with admin(broker, *topics, "mark") as connection:
        connection.publish("mark", "")
        for batch in connection.batches(10):
            for message in batch:
                if message.topic == "mark":
                    connection.interrupt()
                elif message.payload:
                    found[message.topic] = message.payload.decode()
    return found


def said(epoch: int, state: str) -> str:
    return json.dumps({"epoch": epoch, "node": "agx", "state": state})


def test_what_was_retained_before_is_known_once_it_is_in_sync(each_broker: Broker) -> None:
    say(each_broker, "posture/streams/pi1/3/status", said(3, "active"))
    say(each_broker, "posture/streams/pi1/assignment", '{"epoch": 3, "node": "agx"}')
    with board(each_broker) as kept:
        assert {epoch: state for epoch, (state, _) in kept.states("pi1").items()} == {3: State.ACTIVE}
        assert kept.assignment("pi1") == Assignment(epoch=3, node="agx")
        assert (kept.states("pi2"), kept.assignment("pi2")) == ({}, None)


def test_what_analyzers_say_and_what_is_cleared_is_followed(broker: Broker) -> None:
    with board(broker) as kept:
        say(broker, "posture/streams/pi1/3/status", said(3, "ready"))
        wait_until(
            lambda: kept.states("pi1")[3][0] is State.READY if kept.states("pi1") else False,
            timeout=5,
            describe="ready",
        )
        kept.forget_state("pi1", 3)
        wait_until(lambda: not kept.states("pi1"), timeout=5, describe="it is forgotten")
    assert retained(broker, "posture/streams/#") == {}


def test_messages_of_others_are_told_and_cleared(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), board(broker) as kept:
        say(broker, "posture/streams/pi1/assignment", '{"epoch": 3, "node": "agx"}')
        wait_until(lambda: kept.assignment("pi1"), timeout=5, describe="the assignment is heard")
        for topic in ("pi1/assignment", "pi1/3/status"):
            for payload in ("{", "[]", '{"epoch": "three"}', '{"epoch": 3, "node": "agx", "state": "asleep"}'):
                if topic.endswith("status") or "asleep" not in payload:
                    say(broker, f"posture/streams/{topic}", payload)
        say(broker, "posture/streams/pi1/elsewhere", "x")
        say(broker, "posture/streams/pi1/4/status", said(4, "ready"))
        wait_until(lambda: 4 in kept.states("pi1"), timeout=5, describe="the last one is heard")
        assert kept.assignment("pi1") is None, "nobody finds it at the broker any more"
        assert set(kept.states("pi1")) == {4}
        kept.assign("pi1", 3, "agx")
        wait_until(lambda: kept.assignment("pi1"), timeout=5, describe="the assignment is made again")
    assert len([each for each in caplog.messages if each.startswith("cleared a message on posture/streams/pi1/")]) == 7
    assert set(retained(broker, "posture/streams/#")) == {
        "posture/streams/pi1/assignment",
        "posture/streams/pi1/4/status",
        "posture/streams/pi1/elsewhere",
    }


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("1000000000000000000/status", said(10**18, "active")),
        (f"{'9' * 5000}/status", "{}"),
        ("1000000001/status", said(10**9 + 1, "active")),
        ("assignment", '{"epoch": 1000000000000000000, "node": "agx"}'),
        ("assignment", '{"epoch": %s, "node": "agx"}' % ("9" * 5000)),
        ("assignment", '{"epoch": 3, "node": "agx"}' + " " * 10_000_000),
        ("3/status", "x" * 10_000_000),
    ],
    ids=[
        "10^18",
        "5000 digits",
        "10^9 + 1",
        "assignment 10^18",
        "assignment of 5000 digits",
        "10 MB",
        "status of 10 MB",
    ],
)
def test_what_is_retained_beyond_reason_is_told_once_and_cleared(
    each_broker: Broker, caplog: pytest.LogCaptureFixture, topic: str, payload: str
) -> None:
    say(each_broker, f"posture/streams/pi1/{topic}", payload)
    say(each_broker, "posture/streams/pi1/4/status", said(4, "ready"))
    with caplog.at_level(logging.WARNING), board(each_broker) as kept:
        wait_until(
            lambda: set(retained(each_broker, "posture/streams/#")) == {"posture/streams/pi1/4/status"},
            timeout=5,
            describe="it is cleared",
        )
        assert set(kept.states("pi1")) == {4}
        assert kept.assignment("pi1") is None
    with board(each_broker):
        pass
    [line] = [line for line in caplog.messages if line.startswith("cleared")]
    assert line.startswith(f"cleared a message on posture/streams/pi1/{topic[:60]}")


def test_an_assignment_that_the_broker_has_lost_is_made_again(broker: Broker, tmp_path: Path) -> None:
    with board(broker) as kept:
        kept.assign("pi1", 3, "agx")
        wait_until(lambda: kept.assignment("pi1"), timeout=5, describe="it is retained")
        broker.kill()
        wait_until(lambda: kept.synced_since is None, timeout=10, describe="the loss is noticed")
        assert "127.0.0.1" in kept.trouble
        shutil.rmtree(tmp_path / "broker/store")
        (tmp_path / "broker/store").mkdir()
        broker.start()
        wait_until(lambda: kept.synced_since, timeout=20, describe="it is in sync again")
        assert kept.assignment("pi1") is None
        kept.assign("pi1", 3, "agx")
        wait_until(lambda: kept.assignment("pi1"), timeout=5, describe="it is retained again")
    assert retained(broker, "posture/streams/pi1/assignment") == {
        "posture/streams/pi1/assignment": '{"epoch":3,"node":"agx"}'
    }


def test_a_streams_end_takes_its_session_and_all_that_is_retained_of_it(each_broker: Broker) -> None:
    find_session(each_broker, "pi1")
    with board(each_broker) as kept:
        kept.assign("pi1", 4, None)
        say(each_broker, "posture/streams/pi1/3/status", said(3, "done"))
        wait_until(
            lambda: kept.assignment("pi1") and kept.states("pi1"), timeout=5, describe="assignment and state are there"
        )
        kept.forget_stream("pi1")
        wait_until(
            lambda: not kept.assignment("pi1") and not kept.states("pi1"), timeout=5, describe="nothing is retained"
        )
    assert not find_session(each_broker, "pi1")


def test_frame_ages_come_from_results(broker: Broker) -> None:
    row = {
        "stream": "pi1",
        "received_time": "2026-05-04T09:00:00+00:00",
        "analyzed_time": "2026-05-04T09:00:00.5+00:00",
    }
    with board(broker) as kept:
        for strange in ("{", "[]", '{"stream": "pi1"}'):
            say(broker, "posture/results/pi1", strange)
        say(broker, "posture/results/pi1", json.dumps({**row, "captured_time": None}))
        wait_until(lambda: kept.frame_age_s("pi1") == 0.5, timeout=5, describe="the age is half a second")
        say(broker, "posture/results/pi1", json.dumps({**row, "captured_time": "2026-05-04T08:59:58+00:00"}))
        wait_until(lambda: kept.frame_age_s("pi1") == 2.5, timeout=5, describe="the age counts from the capture")
        unset = {"captured_time": "1970-01-01T00:00:09+00:00", "clock_suspect": True}
        say(broker, "posture/results/pi1", json.dumps({**row, **unset}))
        wait_until(lambda: kept.frame_age_s("pi1") == 0.5, timeout=5, describe="a suspect clock is not believed")


def test_the_status_is_retained(broker: Broker) -> None:
    with board(broker) as kept:
        kept.show('{"streams": []}')
        wait_until(lambda: retained(broker, STATUS_TOPIC), timeout=5, describe="the status is retained")
    assert retained(broker, STATUS_TOPIC) == {STATUS_TOPIC: '{"streams": []}'}


def test_a_refusal_for_good_is_said_without_the_password(broker: Broker) -> None:
    with board(broker, password="wrong-and-secret") as kept:
        assert kept.synced_since is None
        assert f"refuses user '{OFFLOADER}'" in str(kept.failure)
        assert "wrong-and-secret" not in str(kept.failure)
