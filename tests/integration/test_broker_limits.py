"""The broker as the role sets it up: one Pi fills its own queue, which is small, and a wrong password costs little."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from posture_common.mqtt import Broker as Address
from posture_common.mqtt import Connection, PublishRefusedError
from posture_common.service import LastingError

from tests.support.brokers import Broker
from tests.support.cameras import left_in_session, open_session
from tests.support.limits import MIB, ROLE, LimitedBroker, limits
from tests.support.mosquitto import Mosquitto
from tests.support.odd import Block, Stranger
from tests.support.plays import Task, run_play
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


def users_of(directory: Path, *, analyzer: str = "", pi: str = "") -> dict[str, str]:
    """Return what the role writes into the password file, by user; a password that is not given is generated."""
    secrets = directory / "secrets"
    secrets.mkdir()
    for user in ("pi1", "posture-analyzer"):
        (secrets / f"mqtt-{user}.txt").write_text(f"{user}-generated")
    path = directory / "users"
    write: Task = {
        "ansible.builtin.template": {"src": str(ROLE / "templates/users.j2"), "dest": str(path), "mode": "0600"},
        "vars": {
            "posture_secrets_dir": str(secrets),
            "__common_secrets": {"analyzer": f"{secrets}/mqtt-posture-analyzer.txt"},
            "__common_kubernetes": False,
            "__common_pis": ["localhost"],
            "__common_pi_ids": ["pi1"],
            "posture_mqtt_analyzer_password": analyzer
            or "{{ lookup('ansible.builtin.file', __common_secrets.analyzer) }}",
            "posture_camera_passwords": {"desk-7": "desk-7-given"},
        },
    }
    ran = run_play(directory, [{"ansible.builtin.set_fact": {"posture_pi_password": pi}}, write])
    assert ran.returncode == 0, ran.stdout
    return dict(line.split(":", 1) for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    ("given", "generated"),
    [({}, {"posture-analyzer", "pi1"}), ({"pi": "mine"}, {"posture-analyzer"}), ({"analyzer": "mine"}, {"pi1"})],
)
def test_generated_passwords_alone_are_cheap_to_check(
    tmp_path: Path, given: dict[str, str], generated: set[str]
) -> None:
    lines = users_of(tmp_path, **given)
    assert set(lines) == {"posture-analyzer", "pi1", "desk-7"}
    assert {user for user, line in lines.items() if line.startswith("$7$101$")} == generated
    assert {user for user, line in lines.items() if line.startswith("$7$10000$")} == set(lines) - generated


def test_the_broker_lets_both_kinds_in(broker: Broker, tmp_path: Path) -> None:
    lines = users_of(tmp_path)
    broker.stop()
    (tmp_path / "broker/passwords").write_text("".join(f"{user}:{line}\n" for user, line in lines.items()))
    broker.start()
    for user, password in {"pi1": "pi1-generated", "desk-7": "desk-7-given"}.items():
        address = Address(host="127.0.0.1", port=broker.port, user=user, password=password)
        with Connection(address, client_id=user):
            pass
        with pytest.raises(LastingError), Connection(replace(address, password=f"{password}."), client_id=user):
            pass


def test_the_analyzers_may_write_states_only_and_read_the_brokers_own_figures(broker: Broker) -> None:
    address = Address(
        host="127.0.0.1", port=broker.port, user="posture-analyzer", password=broker.passwords["posture-analyzer"]
    )
    with Connection(address, client_id="a", topics=["$SYS/broker/heap/current"]) as connection:
        assert int(next(connection.batches(1))[0].payload) > 0
        connection.publish("posture/streams/pi1/4/status", "x").result(timeout=5)
    for topic in ("posture/streams/pi1/assignment", "posture/offloader/status", "images/pi1"):
        with (
            Connection(address, client_id="a") as connection,
            pytest.raises(PublishRefusedError, match="Not authorized"),
        ):
            connection.publish(topic, "x").result(timeout=5)
