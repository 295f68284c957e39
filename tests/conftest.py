"""The servers that the tests share, and the factories for what each test has to itself."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.brokers import Broker
from tests.support.databases import Cluster, Database
from tests.support.mosquitto import NEW, OLD, Mosquitto, find_mosquitto
from tests.support.programs import Program

PIS = ("pi1", "pi2")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Take back what a command did to the root logger when a test ran it in this process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The PostgreSQL of all tests that do not stop it."""
    # Not pytest's own temporary directory: PostgreSQL's account may not look into root's.
    with tempfile.TemporaryDirectory(prefix="posture-test-") as directory, Cluster(Path(directory)) as server:
        yield server


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """A fresh database with the table in it."""
    with cluster.database() as fresh:
        yield fresh


@pytest.fixture(scope="session")
def mosquittos() -> dict[str, Mosquitto]:
    """The two mosquitto versions, by name."""
    return {which: find_mosquitto(which) for which in (OLD, NEW)}


@pytest.fixture
def broker(mosquittos: dict[str, Mosquitto], tmp_path: Path) -> Iterator[Broker]:
    """A fresh broker of the new version."""
    with Broker(mosquittos[NEW], tmp_path / "broker", pis=PIS) as fresh:
        yield fresh


@pytest.fixture(params=[OLD, NEW])
def each_broker(mosquittos: dict[str, Mosquitto], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A fresh broker, of either version in turn."""
    with Broker(mosquittos[request.param], tmp_path / "broker", pis=PIS) as fresh:
        yield fresh


@pytest.fixture
def run() -> Iterator[Callable[[Program], Program]]:
    """Start a program, wait until it is ready, and end it with the test."""
    with ExitStack() as stack:

        def start(program: Program) -> Program:
            stack.enter_context(program)
            program.wait_ready()
            return program

        yield start
