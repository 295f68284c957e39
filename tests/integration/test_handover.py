"""A stream moves between analyzers: whatever happens to them, every image gets its row and none is counted twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.databases import Database
from tests.support.handovers import Feed, Stage, stage


@pytest.fixture
def scene(broker: Broker, database: Database, tmp_path: Path) -> Iterator[Stage]:
    with stage(broker, database, tmp_path) as set_up:
        yield set_up


@pytest.fixture
def each_scene(each_broker: Broker, database: Database, tmp_path: Path) -> Iterator[Stage]:
    with stage(each_broker, database, tmp_path) as set_up:
        yield set_up


def test_a_handover_under_load_loses_nothing_and_repeats_nothing(each_scene: Stage, record_property: object) -> None:
    scene = each_scene
    old = scene.active(1)
    with Feed(scene.broker) as feed:
        scene.wait_more_rows(10)
        new = scene.started(2)
        scene.assigner.assign(2)
        assert old.wait(timeout=20) == 0
        scene.wait(new, 2, "active")
        scene.wait_more_rows(10)
    scene.finish(feed.sent, new, repeats=False)
    assert scene.owners() == ["node-1", "node-2"]
    assert scene.assigner.states(1) == ["warming", "ready", "active", "draining", "done"]
    print("GAP", scene.gap_s(1, 2))
