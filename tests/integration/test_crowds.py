"""Connections that say nothing, or very little, to the ports of /metrics take nothing from the work."""

import re
from collections.abc import Callable
from pathlib import Path

from tests.support import programs
from tests.support.brokers import Broker
from tests.support.cameras import Camera
from tests.support.crowds import assert_answers, crowd
from tests.support.databases import Database
from tests.support.images import Shot, nobody, numbered, photograph
from tests.support.programs import Program
from tests.support.waiting import wait_until

PATHS = ("/healthz", "/readyz", "/metrics")
# What systemd gives a service.
LIMITED = ("prlimit", "--nofile=1024:1024")


def test_images_become_rows_beside_silent_and_slow_connections(
    broker: Broker, database: Database, tmp_path: Path, run: Callable[[Program], Program]
) -> None:
    analyzer = run(programs.analyzer(broker, database, tmp_path, stream="all", wrapper=LIMITED))
    source = tmp_path / "source"
    source.mkdir()
    for number in range(5):
        (source / f"{number}.jpg").write_bytes(numbered(nobody(), number))
    publisher = run(programs.publisher(broker, tmp_path, pi_id="pi2", source=source, wrapper=LIMITED))
    ports = [int(program.environment["POSTURE_HTTP_PORT"]) for program in (analyzer, publisher)]
    before = analyzer.rss_mb()
    with Camera(broker, "pi1") as camera, crowd(ports[0]), crowd(ports[1]):  # paho cannot use descriptors above 1023
        camera.send([*(Shot(data=nobody()) for _ in range(9)), Shot(data=photograph("camera"))])
        wait_until(
            lambda: len(database.rows()) == 15, timeout=30, describe=lambda: f"15 rows: {analyzer.output[-2000:]}"
        )
        for port in ports:
            for path in PATHS:
                assert_answers(port, path)
        assert analyzer.rss_mb() < before + 60
    for line in (analyzer.output + publisher.output).splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) ", line), "not a line of the log"
        assert "Too many open files" not in line
