"""A stream moves between analyzers: whatever happens to them, every image gets its row and none is counted twice."""

import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.cameras import Camera
from tests.support.databases import Database
from tests.support.handovers import STREAM, Feed, Relay, Stage, stage
from tests.support.images import shots
from tests.support.programs import REFUSED, Program
from tests.support.waiting import wait_until


@pytest.fixture
def scene(broker: Broker, database: Database, tmp_path: Path) -> Iterator[Stage]:
    with stage(broker, database, tmp_path) as set_up:
        yield set_up


@pytest.fixture
def each_scene(each_broker: Broker, database: Database, tmp_path: Path) -> Iterator[Stage]:
    with stage(each_broker, database, tmp_path) as set_up:
        yield set_up


def two(scene: Stage) -> tuple[Program, Program]:
    """Return an analyzer that has the stream, and one of the next epoch that stands by."""
    old, new = scene.analyzer(1), scene.analyzer(2)
    old.start()
    new.start()
    scene.wait(1, "ready")
    scene.move(1)
    scene.wait(2, "ready")
    return old, new


def test_a_handover_under_load_loses_nothing_and_repeats_nothing(each_scene: Stage) -> None:
    scene = each_scene
    old, new = two(scene)
    assert new.get("/readyz")[0] == 200
    assert scene.stream_connections() == 2, "the session's making and the old one"
    with Feed(scene.broker) as feed:
        scene.wait_more_rows(5)
        scene.move_with_images(2, feed)
        assert old.wait(timeout=20) == 0
        scene.wait_more_rows(5)
    assert 'posture_handovers_total{direction="in"} 1.0' in new.get("/metrics")[1]
    scene.finish(feed.sent, 2, repeats=False)
    assert scene.owners() == ["node-1", "node-2"]
    for epoch in (1, 2):
        assert scene.assigner.states(epoch) == ["warming", "ready", "active", "draining", "done"]


def test_five_handovers_in_a_row_under_load(scene: Stage) -> None:
    scene.active(1)
    with Feed(scene.broker) as feed:
        for epoch in range(2, 7):
            scene.started(epoch)
            scene.move_with_images(epoch, feed)
            assert scene.programs[epoch - 1].wait(timeout=20) == 0
            scene.wait_more_rows(5)
            assert scene.repeated(epoch) == 0
    scene.finish(feed.sent, 6, repeats=False)
    assert scene.owners() == [f"node-{epoch}" for epoch in range(1, 7)]


def test_a_killed_one_is_taken_over_at_once(scene: Stage) -> None:
    old, _ = two(scene)
    with Feed(scene.broker) as feed:
        scene.wait_more_rows(5)
        feed.send(10)
        old.kill()
        scene.assigner.wait(1, "gone")
        began = time.monotonic()
        scene.move(2)
        assert time.monotonic() - began < 4, "it was waited for"
        scene.wait_more_rows(5)
    scene.finish(feed.sent, 2, repeats=True)


def test_a_hung_one_is_taken_over_and_leaves_when_it_goes_on(each_scene: Stage) -> None:
    scene = each_scene
    old, _ = two(scene)
    with Feed(scene.broker) as feed:
        scene.wait_more_rows(5)
        feed.send(10)
        old.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        scene.move(2)
        assert 4.5 < time.monotonic() - began < 10
        scene.wait_more_rows(5)
        old.process.send_signal(signal.SIGCONT)
        assert old.wait(timeout=20) == 0
        scene.wait_more_rows(5)
    assert scene.stream_connections() == 3, "the old one came back"
    scene.finish(feed.sent, 2, repeats=True)
    assert scene.assigner.last(1) == "done"


def test_an_old_epoch_leaves_before_its_first_connect(scene: Stage) -> None:
    scene.assigner.assign(2, node=None)
    program = scene.analyzer(1)
    program.start()
    assert program.wait(timeout=20) == 0
    scene.wait(1, "done")
    assert "ready" not in scene.assigner.states(1)
    assert scene.stream_connections() == 1, "the session's making alone"


def test_an_isolated_one_asks_whose_the_stream_is_before_it_comes_back(scene: Stage) -> None:
    with Relay(scene.broker) as link:
        old = scene.active(1, MQTT_PORT=str(link.port))
        new = scene.started(2)
        link.cut()
        scene.move(2)
        probes = scene.broker.log.read_text().count("posture-version-")
        link.mend(only="posture-(version|stream)")
        wait_until(
            lambda: scene.broker.log.read_text().count("posture-version-") > probes,
            timeout=20,
            describe="the old one is at the broker again",
        )
        time.sleep(1)  # to come back without asking would take it a few milliseconds
        assert scene.stream_connections() == 3, "the old one took the session back"
        assert old.process.poll() is None
        link.mend()
        assert old.wait(timeout=20) == 0
    scene.wait(1, "done")
    assert scene.stream_connections() == 3
    assert new.get("/readyz")[0] == 200


def test_a_broker_that_lost_everything_changes_no_owner(scene: Stage) -> None:
    program = scene.active(3)
    scene.broker.kill()
    store = scene.directory / "broker/store"
    shutil.rmtree(store)
    store.mkdir()
    scene.assigner.forget()
    scene.broker.start()
    scene.wait(3, "active")
    wait_until(lambda: program.output.count("taking images") == 2, timeout=20, describe=lambda: program.output)
    sent = shots(10)
    with Camera(scene.broker, STREAM) as camera:
        camera.send(sent)
    scene.finish(sent, 3, repeats=True)  # the ear was not back yet


def test_those_that_never_get_the_stream_leave_it_where_it_is(scene: Stage) -> None:
    scene.active(1)
    with Feed(scene.broker) as feed:
        killed = scene.started(2, "warming")
        killed.kill()
        scene.wait(2, "gone")
        assert scene.started(3).terminate() == 0
        scene.wait(3, "done")
        scene.wait_more_rows(5)
    assert scene.stream_connections() == 2
    scene.finish(feed.sent, 1, repeats=False)
    assert "ready" not in scene.assigner.states(2)
    assert scene.assigner.states(3) == ["warming", "ready", "done"]


def test_one_that_cannot_work_says_that_it_is_gone(scene: Stage) -> None:
    wrong = replace(scene.database, password="Falsch-7d1c").url
    program = scene.analyzer(1, DATABASE_URL=wrong)
    program.start()
    assert program.wait(timeout=20) == REFUSED
    scene.wait(1, "gone")
    assert scene.assigner.states(1) == ["warming", "gone"]
    assert "Falsch-7d1c" not in program.output


def test_one_that_the_broker_refuses_ends(scene: Stage) -> None:
    program = scene.analyzer(1, MQTT_PASSWORD="Falsch-7d1c")
    program.start()
    assert program.wait(timeout=20) == REFUSED
    assert "check the password" in program.output
    assert scene.assigner.states(1) == []
