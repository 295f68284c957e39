"""The MQTT connection against peers that a broker would never be; a real broker is for tests/integration."""

import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from posture_common import mqtt
from posture_common.mqtt import Broker, Connection, ConnectionLostError, Mishap
from posture_common.packets import read_publish
from posture_common.service import LastingError

from tests.support.waiting import wait_until

CONNACK = bytes.fromhex("20 03 00 00 00")
SUBACK = bytes.fromhex("90 04 00 01 00 01")
PUBACK, PUBREC, PUBCOMP = (bytes.fromhex(f"{first} 02 00 07") for first in ("40", "50", "70"))
PUBLISH = bytes.fromhex("32 0c 00 06") + b"images" + bytes.fromhex("00 07 00") + b"x"


def refusing(code: int) -> bytes:
    return bytes([0x20, 3, 0, code, 0])


@contextmanager
def peer(serve: Callable[[socket.socket], None]) -> Iterator[Broker]:
    """A peer on a free port that serves one connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10)
                serve(connection)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield Broker(host="127.0.0.1", port=server.getsockname()[1], user="me", password="s3cret")
        thread.join(10)
        assert not thread.is_alive(), "the connection was not closed"


def answering(*answers: bytes) -> Callable[[socket.socket], None]:
    """Answer each packet that comes with the next of these."""

    def serve(connection: socket.socket) -> None:
        for answer in answers:
            connection.recv(4096)
            connection.sendall(answer)

    return serve


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "CONNECT_TIMEOUT_S", 1.0)
    monkeypatch.setattr(mqtt, "CLOSE_TIMEOUT_S", 1.0)


def connection(broker: Broker, **options: object) -> Connection:
    return Connection(broker, client_id="posture-test", **options)  # type: ignore[arg-type]  # names as they are


def test_a_broker_is_named_without_its_password() -> None:
    broker = Broker(host="nuc", port=1883, user="me", password="s3cret")
    assert str(broker) == "broker nuc:1883"
    assert "s3cret" not in repr(broker)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        pytest.raises(ConnectionLostError, match=rf"cannot reach broker 127\.0\.0\.1:{port}: .*refused"),
        connection(Broker(host="127.0.0.1", port=port)),
    ):
        pass


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (lambda _connection: None, "did not answer within 1 s"),
        (answering(CONNACK), "did not answer within 1 s"),
        (lambda connection: connection.shutdown(socket.SHUT_RDWR), "connection lost|did not answer"),
        (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "."),
        (answering(refusing(0x89)), "refuses the connection: Server busy"),
    ],
    ids=["silent", "no subscription", "hangs up", "speaks HTTP", "busy"],
)
@pytest.mark.timeout(20)
def test_a_peer_that_is_no_broker_is_a_lost_connection(
    serve: Callable[[socket.socket], None], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    with peer(serve) as broker, pytest.raises(ConnectionLostError, match=words), connection(broker, topics=["images"]):
        pass


@pytest.mark.parametrize(
    ("code", "reason"), [(0x86, "Bad user name or password"), (0x87, "Not authorized"), (0x85, "Client identifier")]
)
def test_a_refusal_for_good_names_the_user_and_not_the_password(code: int, reason: str) -> None:
    with (
        peer(answering(refusing(code))) as broker,
        pytest.raises(LastingError, match=f"refuses user 'me': {reason}") as error,
        connection(broker),
    ):
        pass
    assert "s3cret" not in str(error.value)


def test_a_certificate_file_that_is_none_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        if path.name == "empty.pem":
            path.write_text("no certificate", encoding="ascii")
        with (
            pytest.raises(LastingError, match=rf"cannot use .*{path.name} as certificate authority"),
            connection(Broker(host="127.0.0.1", port=1, ca_file=path)),
        ):
            pass


@pytest.mark.timeout(20)
def test_messages_are_iterated_until_the_interruption() -> None:
    with peer(answering(CONNACK, SUBACK + 3 * PUBLISH)) as broker, connection(broker, topics=["images"]) as open_one:
        taken = []
        for batch in open_one.batches(2):
            assert len(batch) <= 2
            taken += batch
            if len(taken) == 3:
                open_one.interrupt()
        assert [(message.topic, message.payload, message.properties) for message in taken] == 3 * [("images", b"x", {})]
        assert not open_one.lost


@pytest.mark.timeout(20)
def test_a_lost_connection_is_an_exception_after_what_came() -> None:
    entered = threading.Event()

    def serve(connection: socket.socket) -> None:
        answering(CONNACK, SUBACK + PUBLISH)(connection)
        entered.wait(10)
        connection.shutdown(socket.SHUT_RDWR)

    with peer(serve) as broker, connection(broker, topics=["images"]) as open_one:
        batches = open_one.batches(10)
        taken = next(batches)
        entered.set()
        with pytest.raises(ConnectionLostError, match="connection lost"):
            next(batches)
        assert open_one.lost
        assert len(taken) == 1
        taken[0].acknowledge()
        with pytest.raises(ConnectionLostError):
            open_one.publish("posture/results/pi1", b"{}").result(timeout=5)


@pytest.mark.timeout(20)
def test_a_message_in_flight_fails_with_its_connection() -> None:
    def serve(connection: socket.socket) -> None:
        answering(CONNACK)(connection)
        connection.recv(4096)
        connection.shutdown(socket.SHUT_RDWR)

    with peer(serve) as broker, connection(broker) as open_one:
        published = open_one.publish("posture/results/pi1", b"{}")
        with pytest.raises(ConnectionLostError, match="connection lost"):
            published.result(timeout=10)


@pytest.mark.parametrize(("reason", "taken"), [("00", True), ("10", False)])
@pytest.mark.timeout(20)
def test_an_answer_says_whether_somebody_listens(reason: str, taken: bool) -> None:
    with (
        peer(answering(CONNACK, bytes.fromhex(f"40 04 00 01 {reason} 00"))) as broker,
        connection(broker) as open_one,
    ):
        assert open_one.publish("posture/results/pi1", b"{}").result(timeout=10) is taken


@pytest.mark.timeout(20)
def test_a_refused_message_carries_the_brokers_reason() -> None:
    with peer(answering(CONNACK, bytes.fromhex("40 04 00 01 97 00"))) as broker, connection(broker) as open_one:
        error = open_one.publish("posture/results/pi1", b"{}").exception(timeout=10)
        assert isinstance(error, mqtt.PublishRefusedError)
        assert error.code == 0x97


@pytest.mark.parametrize(
    "nonsense",
    [bytes.fromhex("32 03 00 06") + b"i", bytes.fromhex("f0 00"), bytes.fromhex("90 02 00 01")],
    ids=["a message without id", "an unknown packet", "half an answer"],
)
@pytest.mark.timeout(20)
def test_nonsense_in_the_middle_is_a_lost_connection(nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    entered = threading.Event()

    def serve(connection: socket.socket) -> None:
        answering(CONNACK, SUBACK)(connection)
        entered.wait(10)
        connection.sendall(nonsense)

    with peer(serve) as broker, connection(broker, topics=["images"]) as open_one:
        entered.set()
        with pytest.raises(ConnectionLostError):
            next(open_one.batches(10))


@pytest.mark.timeout(20)
def test_a_message_that_cannot_be_read_is_acknowledged_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    answers = bytearray()
    mishaps: list[tuple[str, Mishap]] = []

    def serve(connection: socket.socket) -> None:
        answering(CONNACK, SUBACK + 2 * PUBLISH.replace(b"images", b"\xff\xfe\xfd\xfc\xfb\xfa") + PUBLISH)(connection)
        while len(answers) < 2 * len(PUBACK):
            answers.extend(connection.recv(4096))

    with (
        peer(serve) as broker,
        connection(broker, topics=["images"], on_mishap=lambda *mishap: mishaps.append(mishap)) as open_one,
    ):
        [[message]] = itertools.islice(open_one.batches(10), 1)
        assert message.payload == b"x"
    assert answers.startswith(2 * PUBACK)
    assert mishaps == 2 * [("", Mishap.UNREADABLE)]
    assert len([line for line in caplog.messages if "cannot be read" in line]) == 1


@pytest.mark.timeout(20)
def test_a_broker_that_sends_what_waits_before_it_answers_is_waited_for() -> None:
    def serve(connection: socket.socket) -> None:
        answering(CONNACK)(connection)
        connection.recv(4096)
        for byte in 4 * PUBLISH:
            connection.sendall(bytes([byte]))
            time.sleep(0.04)  # 2.2 s for all, where an answer is waited for for one
        connection.sendall(SUBACK)

    with peer(serve) as broker, connection(broker, topics=["images"]) as open_one:
        assert len(list(itertools.islice(open_one.batches(1), 4))) == 4


@pytest.mark.timeout(20)
def test_a_message_of_an_earlier_subscription_with_qos_2_is_taken_once_and_acknowledged() -> None:
    answers = bytearray()

    def serve(connection: socket.socket) -> None:
        answering(CONNACK, SUBACK + b"\x3c" + PUBLISH[1:])(connection)
        while len(answers) < len(PUBREC):
            answers.extend(connection.recv(4096))
        connection.sendall(bytes.fromhex("62 02 00 07"))  # PUBREL
        while len(answers) < len(PUBREC + PUBCOMP):
            answers.extend(connection.recv(4096))

    with peer(serve) as broker, connection(broker, topics=["images"]) as open_one:
        [[message]] = itertools.islice(open_one.batches(10), 1)
        assert (message.qos, message.redelivered) == (2, True)
        message.acknowledge()
        wait_until(lambda: len(answers) >= len(PUBREC + PUBCOMP), timeout=10, describe="it is completed")
    assert answers.startswith(PUBREC + PUBCOMP)


@pytest.mark.timeout(20)
def test_messages_with_qos_0_find_as_much_room_as_there_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small = b"\x30\x0a\x00\x06images\x00x"
    monkeypatch.setattr(mqtt, "QOS_0_BYTES_MAX", 100 * read_publish(small[0], small[2:]).weight)
    mishaps: list[tuple[str, Mishap]] = []
    with (
        peer(answering(CONNACK, SUBACK + 60 * small + PUBLISH)) as broker,
        connection(broker, topics=["images"], on_mishap=lambda *mishap: mishaps.append(mishap)) as open_one,
    ):
        lanes = open_one._incoming._lanes
        wait_until(lambda: len(lanes) == 2, timeout=5, describe="all are here")
        taken = []
        for batch in open_one.batches(10):
            taken += batch
            if any(message.qos == 1 for message in batch):
                break
        assert 0 < len(taken) <= 10, "the one with QoS 1 waits behind none of the others"
        assert mishaps == 10 * [("images", Mishap.DROPPED)]
        for message in taken:
            message.acknowledge()
        open_one.interrupt()
    assert len(mishaps) == 60 - len(taken) + 1
    lines = [line for line in caplog.messages if "QoS 0" in line]
    assert len(lines) == 2
    assert f"{50 - len(taken) + 1} messages with QoS 0 are lost" in lines[1]
