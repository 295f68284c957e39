"""Faults in the middle of a run of images, after which every image must have exactly one row and one picture.

Each scenario is a function of a site and the number of images; it raises AssertionError or TimeoutError where an image
is lost, repeated or stuck. The tests run them over 200 images, the bench over 2,000.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import programs
from tests.support.brokers import Broker
from tests.support.cameras import Camera, left_in_session, open_session
from tests.support.databases import Cluster, Database
from tests.support.images import Shot, shots
from tests.support.mosquitto import Mosquitto
from tests.support.programs import Program
from tests.support.waiting import wait_until

PI = "pi1"


@dataclass(frozen=True, kw_only=True)
class Site:
    """Everything that can break: a broker, a cluster with a fresh database, and a directory for the rest."""

    broker: Broker
    cluster: Cluster
    database: Database
    directory: Path

    def wait_rows(self, count: int, *, timeout: float) -> None:
        """Return when there are at least that many rows."""
        wait_until(
            lambda: self.database.count() >= count,
            timeout=timeout,
            describe=lambda: f"{count} rows, there are {self.database.count()}; {self._last_words()}",
            pause=0.05,
        )

    def _last_words(self) -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in self.directory.glob("*.log"))


@contextmanager
def site(mosquitto: Mosquitto, cluster: Cluster) -> Iterator[Site]:
    """Set up a site with that mosquitto; the cluster is one that may be stopped."""
    with (
        TemporaryDirectory(prefix="posture-loss-") as name,
        Broker(mosquitto, Path(name) / "broker", pis=[PI]) as broker,
        cluster.database() as database,
    ):
        yield Site(broker=broker, cluster=cluster, database=database, directory=Path(name))


def analyzer_killed(site: Site, count: int, *, kills: int = 10) -> None:
    """SIGKILL the analyzer again and again in the first half of the images, which wait in its session."""
    sent = _queue(site, count)
    program = programs.analyzer(site.broker, site.database, site.directory)
    with program:
        for _ in range(kills):
            before = site.database.count()
            program.wait_ready()
            site.wait_rows(before + count // (4 * kills), timeout=60)
            program.kill()
            program.start()
        assert site.database.count() < count, "the kills came after the last image"
        _finish(site, program, (shot.filename for shot in sent))


def database_stopped(site: Site, count: int, *, seconds: float) -> None:
    """Stop the database for a while in the middle."""
    sent = _queue(site, count)
    with programs.analyzer(site.broker, site.database, site.directory) as program:
        program.wait_ready()
        site.wait_rows(count // 10, timeout=60)
        site.cluster.stop()
        try:
            time.sleep(seconds)  # the outage itself
        finally:
            site.cluster.start()
        assert site.database.count() < count, "the outage came after the last image"
        _finish(site, program, (shot.filename for shot in sent))


def broker_restarted(site: Site, count: int) -> None:
    """End the broker by SIGTERM and start it again, while a publisher sends."""
    _interrupt_broker(site, count, site.broker.stop)


def broker_killed(site: Site, count: int) -> None:
    """SIGKILL the broker and start it again: it comes back with an old store or none, and the spool has to help."""
    _interrupt_broker(site, count, site.broker.kill)


def publisher_killed(site: Site, count: int, *, kills: int = 3) -> None:
    """SIGKILL the publisher while it sends, and start it again."""
    names = _fill(site.directory / "source", count)
    sender = _publisher(site)
    with programs.analyzer(site.broker, site.database, site.directory) as program, sender:
        for kill in range(kills):
            site.wait_rows(count * (kill + 1) // (kills + 2), timeout=120)
            sender.kill()
            sender.start()
        assert site.database.count() < count, "the kills came after the last image"
        _finish(site, program, names)


def images_directory_full(site: Site, count: int) -> None:
    """Let the images directory run full at half of the images, and make room again when the analyzer has noticed."""
    sent = _queue(site, count)
    directory = site.directory / "images"
    directory.mkdir()
    program = programs.analyzer(
        site.broker, site.database, site.directory, wrapper=on_own_disk(directory, size=count * 16384)
    )
    with program:
        inside = Path(f"/proc/{program.process.pid}/root/{directory}")
        wait_until(lambda: os.path.ismount(inside), timeout=10, describe=lambda: f"a disk of its own: {program.output}")
        ballast = inside / "ballast"
        room = os.statvfs(inside)
        ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - count * 2048))
        wait_until(
            lambda: "No space left on device" in program.output,
            timeout=120,
            describe=lambda: f"the analyzer says that the disk is full: {program.output[-2000:]}",
        )
        assert program.process.poll() is None, "a full disk must not end the analyzer"
        assert site.database.count() < count
        ballast.unlink()
        _finish(site, program, (shot.filename for shot in sent), images=inside)


LOSSES: dict[str, Callable[[Site, int], None]] = {
    "analyzer SIGKILLed 10 times": analyzer_killed,
    "broker restarted": broker_restarted,
    "broker SIGKILLed": broker_killed,
    "publisher SIGKILLed": publisher_killed,
    "images directory full": images_directory_full,
}


def _queue(site: Site, count: int) -> list[Shot]:
    open_session(site.broker, PI)
    sent = shots(count)
    with Camera(site.broker, PI) as camera:
        camera.send(sent)
    return sent


def _fill(source: Path, count: int) -> list[str]:
    source.mkdir()
    for shot in shots(count):
        (source / shot.filename).write_bytes(shot.data)
    return sorted(path.name for path in source.iterdir())


def _publisher(site: Site) -> Program:
    # It must not meet a broker where nobody has subscribed yet: it would pause, and the run take longer for nothing.
    open_session(site.broker, PI)
    return programs.publisher(
        site.broker, site.directory, pi_id=PI, source=site.directory / "source", INTERVAL="0.01", RECONNECT_TIMEOUT="2"
    )


def _interrupt_broker(site: Site, count: int, end: Callable[[], None]) -> None:
    names = _fill(site.directory / "source", count)
    sender = _publisher(site)
    with programs.analyzer(site.broker, site.database, site.directory) as program, sender:
        for part in (4, 2):
            site.wait_rows(count // part, timeout=120)
            end()
            site.broker.start()
        assert site.database.count() < count, "the interruption came after the last image"
        _finish(site, program, names)


def _finish(site: Site, program: Program, names: Iterable[str], *, images: Path | None = None) -> None:
    """Wait for the last image, end the analyzer, and compare what was sent with rows, pictures, session and spool."""
    expected = sorted(names)
    site.wait_rows(len(expected), timeout=60 + len(expected) / 10)
    spool = site.directory / "spool"
    wait_until(
        lambda: not list(spool.glob("*.image")),
        timeout=60,
        describe=lambda: f"every image is confirmed, the spool holds {sorted(spool.glob('*.image'))[:5]}",
    )
    rows = site.database.rows()
    assert sorted(row["filename"] for row in rows) == expected
    written = (images or site.directory / "images") / f"analyzed_images_from_{PI}"
    assert len(list(written.glob("*.jpg"))) == len(expected)
    assert len(list(written.iterdir())) == len(expected), "temporary files are left beside the pictures"
    assert program.terminate() == 0
    if not spool.exists():  # a publisher repeats what it has doubts about: what is left then are repeats
        assert left_in_session(site.broker, PI) == 0


def on_own_disk(directory: Path, *, size: int) -> list[str]:
    """Return the wrapper under which `directory` is a small disk, for the wrapped program alone."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--user", "--map-root-user"]
    return [*unshare, "sh", "-c", f'mount -t tmpfs -o size={size} posture "$0" && exec "$@"', str(directory)]
