import base64
import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Self

import pytest
from posture_common.mqtt import Broker, ConnectionLostError, Message, PublishRefusedError
from posture_common.service import LastingError, Stop
from posture_publisher import uplink as uplink_module
from posture_publisher.delivery import Delivery, Send
from posture_publisher.outbox import Outbox
from posture_publisher.spool import Picture, Spool
from posture_publisher.uplink import Uplink

from tests.support.waiting import wait_until

NONSENSE = [b"", b"[]", b"{}", b"\xff", b'{"image_id": "unknown"}', b'{"image_id": 1}', b"[" * 60_000]
BROKER = Broker(host="broker", port=1883)


class ScriptedConnection:
    """Answers as the test says: mosquitto gives neither 0x97 nor 0x95 on demand."""

    def __init__(self, *, largest_packet: int | None = None) -> None:
        self.largest_packet = largest_packet
        self.published: SimpleQueue[tuple[str, bytes, Mapping[str, str], Future[bool]]] = SimpleQueue()
        self._incoming: SimpleQueue[Message | Exception | None] = SimpleQueue()
        self.acknowledged = 0
        self.entering: Exception | None = None

    def __enter__(self) -> Self:
        if self.entering:
            raise self.entering
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def interrupt(self) -> None:
        self._incoming.put(None)

    def lose(self) -> None:
        self._incoming.put(ConnectionLostError("connection lost"))

    def result(self, payload: bytes) -> None:
        def acknowledge() -> None:
            self.acknowledged += 1

        self._incoming.put(Message("posture/results/pi1", payload, {}, acknowledge))

    def batches(self, _limit: int) -> Iterator[list[Message]]:
        while (item := self._incoming.get(timeout=10)) is not None:
            if isinstance(item, Exception):
                raise item
            yield [item]

    def publish(self, topic: str, payload: bytes, *, properties: Mapping[str, str]) -> "Future[bool]":
        answer: Future[bool] = Future()
        self.published.put((topic, payload, properties, answer))
        return answer


class Bench:
    def __init__(
        self, spool: Spool, monkeypatch: pytest.MonkeyPatch, encoding: Literal["base64", "raw"] = "base64"
    ) -> None:
        self.spool = spool
        self.stop = Stop()
        self.outbox = Outbox(spool, Delivery(window=100, confirm_timeout=600, reconnect_timeout=30))
        self.uplink = Uplink(self.outbox, BROKER, pi_id="pi1", encoding=encoding, stop=self.stop)
        self.connections: SimpleQueue[ScriptedConnection] = SimpleQueue()
        self.error: BaseException | None = None
        monkeypatch.setattr(uplink_module, "open_connection", lambda *_: self.connections.get(timeout=10))
        monkeypatch.setattr("posture_publisher.backoff.FIRST_S", 0.01)
        monkeypatch.setattr("posture_publisher.delivery.PAUSE_FIRST_S", 0.01)

    def put(self, data: bytes = b"a picture", *, rotate: int = 0, clock: str | None = None) -> Picture:
        picture = Picture(
            image_id=str(uuid.uuid4()),
            captured_at=datetime(2026, 1, 2, tzinfo=UTC),
            filename="a.jpg",
            data=data,
            rotate=rotate,
            clock=clock,
        )
        self.outbox.put(picture)
        return picture

    @contextmanager
    def running(self, connection: ScriptedConnection) -> Iterator[None]:
        def run() -> None:
            try:
                self.uplink.run()
            except BaseException as error:
                self.error = error

        self.connections.put(connection)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            self.stop.request()
            self.connections.put(connection)
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path, max_bytes=10**6, pi_id="pi1") as spool:
        yield spool


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(("encoding", "payload"), [("base64", base64.b64encode(b"a picture")), ("raw", b"a picture")])
def test_an_image_goes_out_with_its_properties_and_stays_until_its_row_is_confirmed(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, encoding: Literal["base64", "raw"], payload: bytes
) -> None:
    bench = Bench(spool, monkeypatch, encoding)
    picture = bench.put()
    connection = ScriptedConnection()
    with bench.running(connection):
        topic, sent, properties, answer = connection.published.get(timeout=10)
        assert (topic, sent) == ("images/pi1", payload)
        assert properties == {
            "image_id": picture.image_id,
            "captured_at": "2026-01-02T00:00:00+00:00",
            "seq": "1",
            "filename": "a.jpg",
        }
        answer.set_result(True)
        assert len(spool) == 1
        for nonsense in NONSENSE:
            connection.result(nonsense)
        padding = " " * uplink_module._RESULT_BYTES
        connection.result(json.dumps({"image_id": picture.image_id, "padding": padding}).encode())
        wait_until(lambda: connection.acknowledged == len(NONSENSE) + 1, timeout=10, describe="all are heard")
        assert len(spool) == 1
        connection.result(json.dumps({"image_id": picture.image_id}).encode())
    assert len(spool) == 0
    assert connection.acknowledged == len(NONSENSE) + 2
    assert bench.error is None


def test_what_the_analyzer_must_know_of_a_picture_goes_with_it(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(spool, monkeypatch)
    bench.put(rotate=180, clock="unsynchronised")
    connection = ScriptedConnection()
    with bench.running(connection):
        _, _, properties, _ = connection.published.get(timeout=10)
    assert (properties["rotate"], properties["clock"]) == ("180", "unsynchronised")


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (PublishRefusedError("Not authorized", code=0x87), "access list"),
        (PublishRefusedError("Quota exceeded", code=0x97), "Quota exceeded"),
        (None, "nobody at broker broker:1883 is subscribed to images/pi1"),
    ],
)
def test_a_refused_image_is_kept_and_tried_again_and_the_cause_told_once(
    spool: Spool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refusal: Exception | None,
    words: str,
) -> None:
    bench = Bench(spool, monkeypatch)
    picture = bench.put()
    connection = ScriptedConnection()
    with bench.running(connection):
        for _ in range(3):
            *_, answer = connection.published.get(timeout=10)
            if refusal:
                answer.set_exception(refusal)
            else:
                answer.set_result(False)
        *_, properties, answer = connection.published.get(timeout=10)
        assert properties["image_id"] == picture.image_id
        answer.set_result(True)
        assert bench.uplink.problem is None
    assert len(spool) == 1
    assert len(errors(caplog)) == 1
    assert words in errors(caplog)[0]


@pytest.mark.parametrize("told", ["on connecting", "by its answer"])
def test_an_image_that_the_broker_never_takes_is_given_up(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, told: str
) -> None:
    bench = Bench(spool, monkeypatch)
    large = bench.put(b"x" * 10_000)
    small = bench.put()
    connection = ScriptedConnection(largest_packet=5000 if told == "on connecting" else None)
    with bench.running(connection):
        if told == "by its answer":
            *_, answer = connection.published.get(timeout=10)
            answer.set_exception(PublishRefusedError("Packet too large", code=0x95))
        *_, properties, answer = connection.published.get(timeout=10)
        assert properties["image_id"] == small.image_id
        answer.set_result(True)
    assert [entry.image_id for entry in spool.entries()] == [small.image_id]
    assert large.image_id in errors(caplog)[0]


def test_a_damaged_image_is_given_up_and_one_that_was_dropped_passed_over(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = Bench(spool, monkeypatch)
    for damage in (lambda path: path.write_bytes(b"torn"), Path.unlink):
        bench.put()
        damage(tmp_path / spool.entries()[-1].name)
    last = bench.put()
    connection = ScriptedConnection()
    with bench.running(connection):
        *_, properties, _ = connection.published.get(timeout=10)
        assert properties["image_id"] == last.image_id


def test_what_was_unanswered_goes_out_again_on_the_next_connection(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(spool, monkeypatch)
    picture = bench.put()
    first, second = ScriptedConnection(), ScriptedConnection()
    with bench.running(first):
        *_, answer = first.published.get(timeout=10)
        first.lose()
        bench.connections.put(second)
        *_, properties, _ = second.published.get(timeout=10)
        answer.set_exception(ConnectionLostError("late"))
        assert properties["image_id"] == picture.image_id


def test_a_wrong_password_ends_it_at_the_start_only(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ScriptedConnection()
    wrong.entering = LastingError("wrong password")
    bench = Bench(spool, monkeypatch)
    with bench.running(wrong):
        pass
    assert isinstance(bench.error, LastingError)

    bench = Bench(spool, monkeypatch)
    picture = bench.put()
    first, last = ScriptedConnection(), ScriptedConnection()
    with bench.running(first):
        first.published.get(timeout=10)
        first.lose()
        bench.connections.put(wrong)
        bench.connections.put(last)
        *_, properties, _ = last.published.get(timeout=10)
        assert properties["image_id"] == picture.image_id
    assert bench.error is None


def test_a_sender_that_breaks_is_not_left_unnoticed(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(spool, monkeypatch)
    bench.put()

    def broken(_connection: Any, _send: Send) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(bench.uplink, "_send", broken)
    connection = ScriptedConnection()
    with bench.running(connection):
        wait_until(lambda: bench.error, timeout=10, describe="the uplink ends by itself")
    assert isinstance(bench.error, RuntimeError)
