"""What a broker may answer to an image and mosquitto does not on demand."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from posture_common.mqtt import Broker, Connection, ConnectionLostError

ACCEPTED = bytes([0x20, 3, 0, 0, 0])
ACCEPTED_UP_TO_5000_BYTES = bytes([0x20, 8, 0, 0, 5, 0x27, 0, 0, 0x13, 0x88])
PUBACK_PACKET_TOO_LARGE = bytes([0x40, 4, 0, 1, 0x95, 0])  # a code that paho does not know here


@contextmanager
def broker_that_answers(welcome: bytes, answer: bytes = b"") -> Iterator[Broker]:
    """Serve one connection: welcome it, and give this answer to what it then sends."""

    def serve() -> None:
        client, _ = server.accept()
        with client:
            client.recv(1000)
            client.sendall(welcome)
            if client.recv(1000):
                client.sendall(answer)
            while client.recv(1000):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Broker(host="127.0.0.1", port=server.getsockname()[1])
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.timeout(20)
def test_an_answer_that_paho_cannot_read_is_a_lost_connection() -> None:
    with (
        broker_that_answers(ACCEPTED, PUBACK_PACKET_TOO_LARGE) as broker,
        Connection(broker, client_id="pi1") as connection,
    ):
        answer = connection.publish("images/pi1", b"image")
        with pytest.raises(ConnectionLostError):
            answer.result(timeout=5)
        with pytest.raises(ConnectionLostError):
            next(connection.batches(1))
        assert connection.lost


@pytest.mark.parametrize(("welcome", "largest"), [(ACCEPTED, None), (ACCEPTED_UP_TO_5000_BYTES, 5000)])
def test_the_largest_packet_is_known(welcome: bytes, largest: int | None) -> None:
    with broker_that_answers(welcome) as broker, Connection(broker, client_id="pi1") as connection:
        assert connection.largest_packet == largest
