"""Whatever breaks in the middle, every image gets its row and none gets two."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import losses
from tests.support.databases import Cluster
from tests.support.losses import Site
from tests.support.mosquitto import NEW, OLD, Mosquitto

IMAGES = 200

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A PostgreSQL that may be stopped."""
    with tempfile.TemporaryDirectory(prefix="posture-test-") as directory, Cluster(Path(directory)) as server:
        yield server


@pytest.mark.parametrize("which", [OLD, NEW])
@pytest.mark.parametrize("loss", losses.LOSSES.values(), ids=losses.LOSSES.keys())
def test_nothing_is_lost_and_nothing_twice(
    mosquittos: dict[str, Mosquitto], cluster: Cluster, loss: Callable[[Site, int], None], which: str
) -> None:
    with losses.site(mosquittos[which], cluster) as site:
        loss(site, IMAGES)


@pytest.mark.parametrize("which", [OLD, NEW])
def test_nothing_is_lost_while_the_database_is_stopped(
    mosquittos: dict[str, Mosquitto], own_cluster: Cluster, which: str
) -> None:
    with losses.site(mosquittos[which], own_cluster) as site:
        losses.database_stopped(site, IMAGES, seconds=60)
