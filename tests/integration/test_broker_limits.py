"""The broker as the role sets it up: one Pi fills its own queue, which is small, and a wrong password costs little."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from posture_common.mqtt import Broker as Address
from posture_common.mqtt import Connection

from tests.support.cameras import left_in_session, open_session
from tests.support.limits import MIB, LimitedBroker, limits
from tests.support.mosquitto import Mosquitto
from tests.support.odd import Block, Stranger
from tests.support.waiting import wait_until


@pytest.mark.parametrize(("streams", "cameras"), [(1, 0), (1, 30), (2, 0), (5, 0), (100, 0)])
def test_the_limits_fit_each_other(streams: int, cameras: int) -> None:
    found = limits(streams, cameras)
    packet, queue = found["broker_packet_size_max"], found["broker_queue_bytes_max"]
    assert packet > 20 * MIB * 4 / 3 + 8192, "the analyzer's largest image in base64, and properties"
    assert 2 * packet <= queue <= 128 * MIB, "two of the largest, and no more than is written in half a second"
    assert streams == 1 or streams * queue <= max(256 * MIB, streams * 2 * packet)
    assert found["broker_memory_max"] > streams * queue + max(streams, cameras) * 4 * packet


@pytest.fixture
def limited(mosquittos: dict[str, Mosquitto], tmp_path: Path, each: str) -> Iterator[LimitedBroker]:
    with LimitedBroker(mosquittos[each], tmp_path / "broker", pis=("pi1", "pi2"), limits=limits(2)) as broker:
        yield broker


@pytest.mark.parametrize("each", ["old", "new"])
@pytest.mark.parametrize("size", [8 * MIB, 27_900_000])
def test_a_pi_that_sends_without_end_fills_its_own_queue_alone(
    limited: LimitedBroker, tmp_path: Path, size: int
) -> None:
    for stream in ("pi1", "pi2"):
        open_session(limited, stream)

    def pi(name: str) -> Connection:
        address = Address(host="127.0.0.1", port=limited.pi_port, user=name, password=limited.passwords[name])
        return Connection(address, client_id=name)

    with pi("pi1") as hostile, pi("pi2") as other:
        for _ in range(500 * MIB // size):
            hostile.publish("images/pi1", bytes(size)).result(timeout=30)
            assert other.publish("images/pi2", b"x").result(timeout=30)
        assert limited.rss_mb() < 300, "one queue of 89 MB, and two of the largest messages on their way"
        store = tmp_path / "broker/store/mosquitto.db"
        wait_until(lambda: store.exists() and store.stat().st_size > 50 * MIB, timeout=30, describe="it is written")
        limited.stop()
        assert store.stat().st_size < 150_000_000, "others wait for so long as that takes to write"


@pytest.mark.parametrize("each", ["old", "new"])
def test_messages_without_a_payload_fill_no_more_of_a_queue_than_others(limited: LimitedBroker) -> None:
    open_session(limited, "pi1")
    with Stranger(limited) as stranger:
        for _ in range(21_000):
            stranger.throw("images/pi1", b"", properties=Block(b""), qos=1, retain=False)
        stranger.wait()
    assert left_in_session(limited, "pi1") <= 20_000 + 20, "those in flight come on top"
