"""Messages that are hard to take: none cuts the analyzer off, fills its memory or comes again for ever."""

import re
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from posture_common.mqtt import Broker as Address
from posture_common.mqtt import Connection

from tests.support import programs
from tests.support.brokers import ADMIN, Broker
from tests.support.cameras import Camera, open_session
from tests.support.databases import Database
from tests.support.images import Shot, nobody
from tests.support.odd import Block, Stranger, pairs
from tests.support.programs import Program
from tests.support.waiting import wait_until

Start = Callable[[Program], Program]


def counted(analyzer: Program, name: str, **labels: str) -> float:
    """Return a counter of the analyzer's /metrics, 0 where it is not there."""
    wanted = "".join(f'(?=.*{key}="{value}")' for key, value in labels.items())
    return sum(
        float(found[1])
        for line in analyzer.get("/metrics")[1].splitlines()
        if (found := re.fullmatch(rf"{name}_total\{{{wanted}.*\}} (\S+)", line))
    )


def wait_rows(database: Database, count: int, analyzer: Program, *, timeout: float = 30) -> None:
    wait_until(
        lambda: len(database.rows()) >= count,
        timeout=timeout,
        describe=lambda: f"{count} rows, not {len(database.rows())}; the analyzer says: {analyzer.output[-2000:]}",
    )


@pytest.mark.parametrize(("count", "size"), [(80_000, 1), (500, 60_000)])
def test_properties_without_end_cost_one_row(
    each_broker: Broker, database: Database, tmp_path: Path, run: Start, count: int, size: int
) -> None:
    open_session(each_broker, "pi1")
    with Stranger(each_broker) as stranger, Camera(each_broker, "pi1") as camera:
        stranger.send("images/pi1", nobody(41, 41), properties=pairs(count, size))
        camera.send([Shot(data=nobody(42, 42))])
        analyzer = run(programs.analyzer(each_broker, database, tmp_path))
        wait_rows(database, 2, analyzer)
        stranger.send("images/pi1", nobody(43, 43), properties=pairs(count, size))
        camera.send([Shot(data=nobody(44, 44))])
        wait_rows(database, 4, analyzer)
    assert [row["posture_status"] for row in database.rows()] == 4 * ["No person detected"]
    assert counted(analyzer, "posture_messages_mishaps", pi_id="pi1", mishap="properties") == 2
    assert len(re.findall("a message on images/pi1 is taken without properties", analyzer.output)) == 1
    assert "Traceback" not in analyzer.output


def test_a_name_that_paho_cannot_read_is_a_name(broker: Broker, database: Database, tmp_path: Path, run: Start) -> None:
    analyzer = run(programs.analyzer(broker, database, tmp_path))
    name = "\ufeffcamera.jpg".encode()
    with Stranger(broker) as stranger:
        stranger.send("images/pi1", nobody(), properties=Block(b"\x26\0\x08filename" + len(name).to_bytes(2) + name))
    wait_rows(database, 1, analyzer)
    assert database.rows()[0]["filename"] == "\ufeffcamera.jpg"


def test_a_flood_with_qos_0_is_dropped_and_counted_and_holds_nobody_up(
    each_broker: Broker, database: Database, tmp_path: Path, run: Start
) -> None:
    analyzer = run(programs.analyzer(each_broker, database, tmp_path, stream="all", WORKERS="1"))
    before = analyzer.rss_mb()
    image = nobody(640, 480)
    with Stranger(each_broker) as stranger, Camera(each_broker, "pi2") as camera:
        for number in range(1500):
            stranger.send("images/pi1", image + bytes(300_000 - len(image)) + str(number).encode(), qos=0)
            if number in (750, 1490):
                shot = Shot(data=nobody(40 + number, 40))
                camera.send([shot])
                wait_until(
                    lambda: shot.image_id in {row["image_id"] for row in database.rows()},  # noqa: B023
                    timeout=5,
                    describe="pi2 does not wait behind pi1",
                )
        assert analyzer.get("/readyz")[0] == 200
        wait_until(
            lambda: counted(analyzer, "posture_messages_mishaps", pi_id="pi1", mishap="dropped") > 1000,
            timeout=20,
            describe="most are dropped",
        )
    assert analyzer.peak_mb() - before < 150, "32 of the 64 MiB wait, and one is in work"
    assert len(re.findall("messages on images/pi1 come with QoS 0", analyzer.output)) == 1
    assert counted(analyzer, "posture_messages_mishaps", pi_id="pi2", mishap="dropped") == 0


def test_what_waits_with_qos_0_at_the_stop_is_told_in_one_line(
    broker: Broker, database: Database, tmp_path: Path, run: Start
) -> None:
    analyzer = run(programs.analyzer(broker, database, tmp_path, WORKERS="1"))
    with Stranger(broker) as stranger:
        for number in range(60):
            stranger.send("images/pi1", nobody(640, 480 + number), qos=0)
        wait_rows(database, 1, analyzer)
    assert analyzer.terminate() == 0
    [line] = [line for line in analyzer.output.splitlines() if "QoS 0" in line]
    found = re.search(r"(\d+) messages with QoS 0 are lost, not worked off yet: (\d+) on images/pi1", line)
    assert found, line
    assert int(found[1]) == 60 - len(database.rows())


def listen(broker: Broker, **options: bool) -> Connection:
    address = Address(host="127.0.0.1", port=broker.port, user=ADMIN, password=broker.passwords[ADMIN])
    return Connection(address, client_id="listener", topics=["images/+"], session_expiry_s=60, **options)  # type: ignore[arg-type]  # names as they are


def heard(connection: Connection) -> list[bytes]:
    """Return what has come before a message of our own comes back."""
    payloads = []
    mark = uuid4().bytes  # the last call's may come again: its acknowledgement can be lost at the disconnect
    connection.publish("images/mark", mark)
    for batch in connection.batches(10):
        for message in batch:
            message.acknowledge()
            if message.payload == mark:
                connection.interrupt()
            elif message.topic != "images/mark":
                payloads.append(message.payload)
    return payloads


@pytest.mark.parametrize(("options", "again"), [({}, [b"old", b"new"]), ({"retained_again": False}, [])])
def test_what_is_retained_comes_again_only_where_it_is_asked_for(
    each_broker: Broker, options: dict[str, bool], again: list[bytes]
) -> None:
    with Stranger(each_broker) as stranger:
        stranger.send("images/pi1", b"old", retain=True)
        with listen(each_broker, **options) as connection:
            stranger.send("images/pi2", b"new", retain=True)
            assert heard(connection) == [b"old", b"new"]
        for _ in range(2):
            with listen(each_broker, **options) as connection:
                assert sorted(heard(connection)) == sorted(again)


def test_a_message_that_was_not_acknowledged_comes_again_and_says_so(each_broker: Broker) -> None:
    with Stranger(each_broker) as stranger, listen(each_broker) as first:
        stranger.send("images/pi1", b"x")
        [message] = next(first.batches(1))
        assert not message.redelivered
    with listen(each_broker) as second:
        [message] = next(second.batches(1))
        assert message.redelivered


def test_the_brokers_own_figures_are_among_the_metrics(
    broker: Broker, database: Database, run: Callable[[Program], Program], tmp_path: Path
) -> None:
    analyzer = run(programs.analyzer(broker, database, tmp_path))

    def heap() -> float:
        found = re.search(r"^posture_broker_heap_bytes (\S+)$", analyzer.get("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    wait_until(lambda: heap() > 10_000, timeout=20, describe="the broker's memory")
