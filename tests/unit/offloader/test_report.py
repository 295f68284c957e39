"""What the offloader says of streams and nodes."""

from unittest import mock

import pytest
from posture_offloader import report
from posture_offloader.handover import Job

from posture_edge import load
from tests.support.worlds import MemoryBoard, MemoryCluster, World, offload, read_loads


def said(world: World) -> report.Status:
    """Return what an offloader that has just looked says."""
    offloader = offload(world)
    offloader.look()
    offloader.follow()
    board = MemoryBoard(world)
    return report.status(offloader, board, None)  # type: ignore[arg-type]


def test_streams_and_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"nuc": 10, "agx": 20}, streams=("pi1", "pi2"))
    monkeypatch.setattr(load, "read_loads", read_loads(world))
    world.run(15)
    status = said(world)
    assert [(each["stream"], each["node"], each["epoch"], each["state"]) for each in status["streams"]] == [
        ("pi1", "nuc", 1, "active"),
        ("pi2", "nuc", 1, "active"),
    ]
    assert all("nuc keeps it" in each["reason"] for each in status["streams"])
    assert [(each["node"], each["loads"], each["verdict"]) for each in status["nodes"]] == [
        ("nuc", {"cpu": 10}, "target"),
        ("agx", {"cpu": 20}, "target"),
    ]
    assert status["problems"] == []
    text = report.as_text(status)
    assert text.splitlines()[0].split() == ["stream", "node", "epoch", "state", "since", "frame", "age", "why"]
    assert text.splitlines()[1].split()[:4] == ["pi1", "nuc", "1", "active"]


def test_a_stream_on_its_way_says_what_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"nuc": 10, "agx": 20}, fails={"agx"})
    monkeypatch.setattr(load, "read_loads", read_loads(world))
    world.run(15)
    world.asked = {"pi1": "agx"}
    world.run(6)
    pulling = {"pi1": {1: Job(), 2: Job(problem="ImagePullBackOff: no such image")}}
    with mock.patch.object(MemoryCluster, "jobs", return_value=pulling):
        (stream,) = said(world)["streams"]
    assert (stream["node"], stream["moving_to"], stream["state"]) == ("nuc", "agx", "active")
    assert stream["reason"] == "a person asked for it; agx: ImagePullBackOff: no such image"


def test_prometheus_away_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"nuc": 10}, prometheus=False)
    monkeypatch.setattr(load, "read_loads", read_loads(world))
    status = said(world)
    assert status["problems"] == ["Prometheus does not answer"]
    assert report.as_text(status).endswith("! Prometheus does not answer")
