"""The Lease between two offloaders, by a clock that the test moves."""

import time
from typing import Any

import pytest
from posture_offloader.cluster import ConflictError
from posture_offloader.lease import DURATION_S, Lease


class MemoryCluster:
    """Holds one Lease."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None

    def lease(self) -> dict[str, Any] | None:
        return self.stored

    def write_lease(self, written: dict[str, Any]) -> None:
        version = int(self.stored["metadata"]["resourceVersion"]) if self.stored else 0
        if int(written["metadata"].get("resourceVersion", 0)) != version:
            raise ConflictError("it was changed")
        metadata = {**written["metadata"], "resourceVersion": str(version + 1)}
        self.stored = {"metadata": metadata, "spec": {**written["spec"], "renewTime": str(version)}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_one_holds_it_until_it_is_not_renewed_for_long_enough(clock: list[float]) -> None:
    cluster: Any = MemoryCluster()
    first, second = Lease(cluster, "first"), Lease(cluster, "second")
    assert (first.take(), first.held) == (None, True)
    for _ in range(10):
        clock[0] += DURATION_S / 2
        assert (second.take(), first.take()) == ("first", None)
    assert second.take() == "first"
    clock[0] += DURATION_S - 1
    assert (second.take(), first.held) == ("first", True)
    clock[0] += 1
    assert (second.take(), first.held) == (None, False)
    assert first.take() == "second"


def test_one_that_stops_gives_it_back_and_one_that_was_late_takes_nothing_from_the_next(clock: list[float]) -> None:
    cluster: Any = MemoryCluster()
    first, second = Lease(cluster, "first"), Lease(cluster, "second")
    first.take()
    first.give_back()
    assert (second.take(), first.held) == (None, False)
    first.give_back()
    assert second.take() is None


def test_a_container_that_is_started_again_in_its_pod_need_not_wait(clock: list[float]) -> None:
    cluster: Any = MemoryCluster()
    assert Lease(cluster, "pod-1").take() is None
    assert Lease(cluster, "pod-1").take() is None


def test_of_two_at_once_one_is_faster(clock: list[float]) -> None:
    cluster: Any = MemoryCluster()
    first, second = Lease(cluster, "first"), Lease(cluster, "second")
    seen = cluster.lease()
    first.take()
    cluster.lease = lambda: seen
    assert second.take() == "somebody who was faster"
