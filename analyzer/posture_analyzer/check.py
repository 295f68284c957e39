"""`posture-analyzer check`: tries each thing the analyzer needs and says of each what is wrong."""

import os
import tempfile
from collections.abc import Callable, Iterator

from posture_common.mqtt import Broker, Connection, ConnectionLostError
from posture_common.service import FailedError, LastingError

from .analysis import Analyst
from .connecting import DatabaseUnavailableError
from .database import Database
from .refusals import RowRefusedError
from .settings import AnalyzerSettings


def check(settings: AnalyzerSettings) -> Iterator[tuple[str, str | None]]:
    """Yield each thing's name and what is wrong with it, None where all is well."""
    broker = Broker.of(settings)
    database = Database(settings.conninfo, probe_pi_id=settings.probe_pi_id)
    yield str(broker), _problem(lambda: _connect(broker))
    yield str(database), _problem(database.check)
    yield f"model {settings.model}", _problem(lambda: Analyst(settings).close())
    yield f"images directory {settings.images_dir}", _problem(lambda: write_probe(settings))


def write_probe(settings: AnalyzerSettings) -> None:
    """Raise `LastingError` unless pictures can be written where they belong."""
    try:
        with tempfile.TemporaryFile(dir=settings.images_dir) as file:
            file.write(b"posture")
    except OSError as error:
        raise LastingError(
            f"cannot write to {settings.images_dir} as user id {os.geteuid()}: {error.strerror}; "
            "make the directory, give it that owner or free space, or set POSTURE_IMAGES_DIR"
        ) from None


def _connect(broker: Broker) -> None:
    with Connection(broker, client_id=f"posture-check-{os.getpid()}"):
        pass


def _problem(attempt: Callable[[], None]) -> str | None:
    try:
        attempt()
    except (FailedError, LastingError, ConnectionLostError, DatabaseUnavailableError, RowRefusedError) as error:
        return str(error)
    return None
