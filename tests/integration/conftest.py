"""One running pipeline that the tests of single images share."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PIS
from tests.support import programs
from tests.support.brokers import ADMIN, Broker
from tests.support.cameras import Camera, Results
from tests.support.databases import Cluster, Database
from tests.support.images import Shot
from tests.support.mosquitto import NEW, Mosquitto
from tests.support.programs import Program
from tests.support.waiting import wait_until


@dataclass(kw_only=True)
class Station:
    """A broker, a database and an analyzer of stream `all` with the default two passes, and an ear for its results."""

    broker: Broker
    database: Database
    analyzer: Program
    images: Path
    results: Results
    uncommitted: list[str] = field(default_factory=list)
    """Images whose result was published although their row could not be seen yet."""

    def send(self, pi_id: str, *shots: Shot, v5: bool = True, raw: bool = False, topic: str | None = None) -> None:
        """Publish as somebody who may publish anywhere."""
        with Camera(self.broker, pi_id, user=ADMIN, v5=v5) as camera:
            camera.send(shots, raw=raw, topic=topic)

    def rows(self, pi_id: str) -> list[dict[str, Any]]:
        """Return the rows of one Pi in the order of their analysis."""
        return [row for row in self.database.rows() if row["pi_id"] == pi_id]

    def wait_rows(self, pi_id: str, count: int = 1) -> list[dict[str, Any]]:
        """Return the Pi's rows as soon as there are `count`."""
        wait_until(
            lambda: len(self.rows(pi_id)) >= count,
            timeout=20,
            describe=lambda: f"{count} rows of {pi_id}; the analyzer says: {self.analyzer.output[-2000:]}",
        )
        return self.rows(pi_id)

    def wait_result(self, shot: Shot) -> dict[str, Any]:
        """Return the first result of the shot."""
        results = wait_until(
            lambda: self.results.of(shot.image_id),
            timeout=20,
            describe=lambda: f"a result of {shot}; the analyzer says: {self.analyzer.output[-2000:]}",
        )
        return results[0]

    def wait_results(self, pi_id: str, count: int = 1) -> list[dict[str, Any]]:
        """Return the Pi's results as soon as there are `count`."""

        def messages() -> list[dict[str, Any]]:
            return [result for topic, result in self.results.messages if topic == f"posture/results/{pi_id}"]

        wait_until(lambda: len(messages()) >= count, timeout=20, describe=f"{count} results of {pi_id}")
        return messages()


@pytest.fixture(scope="session")
def station(cluster: Cluster, mosquittos: dict[str, Mosquitto]) -> Iterator[Station]:
    """The pipeline that the tests of single images share: each takes a Pi of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="posture-station-") as name,
        Broker(mosquittos[NEW], Path(name) / "broker", pis=PIS) as broker,
        cluster.database() as database,
    ):
        directory = Path(name)
        uncommitted: list[str] = []

        def check_committed(result: dict[str, Any]) -> None:
            if not any(row["image_id"] == result["image_id"] for row in database.rows()):
                uncommitted.append(result["image_id"])

        with (
            Results(broker, on_result=check_committed) as results,
            programs.analyzer(broker, database, directory, stream="all", PASSES="2", LOG_LEVEL="DEBUG") as analyzer,
        ):
            analyzer.wait_ready()
            yield Station(
                broker=broker,
                database=database,
                analyzer=analyzer,
                images=directory / "images",
                results=results,
                uncommitted=uncommitted,
            )
