"""Every account at a real broker tries what it may not do, by every id, on both ports; what it may do works."""

import json
import queue
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.support.brokers import ADMIN, OFFLOADER, Broker, analyzer_user
from tests.support.cameras import Camera, left_in_session, open_session
from tests.support.images import shots
from tests.support.mosquitto import NEW, OLD, Mosquitto
from tests.support.plays import run_play

ANALYZER, READER = analyzer_user("pi1"), "board"
WILDCARDS = ("#", "+/#", "images/#", "images/+", "posture/#", "$SYS/#", "$CONTROL/#", "$share/all/images/pi1")
TOPICS = (
    "images/pi1",
    "images/pi2",
    "images/pi1/x",
    "posture/results/pi1",
    "posture/results/pi2",
    "posture/streams/pi1/assignment",
    "posture/streams/pi1/4/status",
    "posture/streams/pi1/trial",
    "posture/streams/pi2/assignment",
    "posture/streams/pi2/4/status",
    "posture/streams/pi2/trial",
    "posture/offloader/status",
    "posture/offloader/mark",
    "posture/other",
    "other",
    "$SYS/broker/heap/current",
    "$CONTROL/dynamic-security/v1",
)
STATES = {f"posture/streams/{pi}/4/status" for pi in ("pi1", "pi2")}
RESULTS = {f"posture/results/{pi}" for pi in ("pi1", "pi2")}
OF_STREAMS = {topic for topic in TOPICS if topic.startswith("posture/streams/")}
OF_PI1 = {topic for topic in OF_STREAMS if "/pi1/" in topic}
MAY_WRITE = {
    "pi1": {"images/pi1"},
    "pi2": {"images/pi2"},
    ANALYZER: {"posture/results/pi1", "posture/streams/pi1/4/status", "posture/streams/pi1/trial"},
    OFFLOADER: {*OF_STREAMS, "posture/offloader/status", "posture/offloader/mark"},
    READER: set(),
}
MAY_READ = {
    "pi1": {"posture/results/pi1"},
    "pi2": {"posture/results/pi2"},
    ANALYZER: {"images/pi1", "$SYS/broker/heap/current", *OF_PI1},
    OFFLOADER: {"posture/#", *(topic for topic in TOPICS if topic.startswith("posture/"))},
    READER: {*RESULTS, *STATES, "posture/offloader/status"},
}
IDS = ("pi1", "pi2", "posture-stream-pi1", "posture-stream-pi2", OFFLOADER, "posture-ctl-pi2-1", "something")


@dataclass
class Visitor:
    """Somebody who logs in once, by MQTT 5, so that the broker says what it refuses."""

    port: int
    user: str | None
    password: str | None
    client_id: str
    answers: "queue.Queue[ReasonCode]" = field(default_factory=queue.Queue)
    messages: "queue.Queue[MQTTMessage]" = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self.client = client = Client(
            CallbackAPIVersion.VERSION2, self.client_id, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False
        )
        client.username_pw_set(self.user, self.password)
        client.on_connect = lambda _client, _data, _flags, reason, _properties: self.answers.put(reason)
        client.on_subscribe = lambda _client, _data, _mid, reasons, _properties: self.answers.put(reasons[0])
        client.on_publish = lambda _client, _data, _mid, reason, _properties: self.answers.put(reason)
        client.on_message = lambda _client, _data, message: self.messages.put(message)

    def __enter__(self) -> Self:
        """Keep a session that was there, and leave one."""
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", self.port, clean_start=False, properties=properties)
        self.client.loop_start()
        self.welcome = not self._answer().is_failure
        return self

    def __exit__(self, *_: Any) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def may_read(self, topic: str) -> bool:
        """Subscribe to a topic; return whether the broker lets us."""
        self.client.subscribe(topic, qos=1)
        return not self._answer().is_failure

    def may_write(self, topic: str, *, retain: bool = False) -> bool:
        """Publish on a topic; return whether the broker lets us."""
        self.client.publish(topic, b"x", qos=1, retain=retain)
        return not self._answer().is_failure

    def _answer(self) -> ReasonCode:
        return self.answers.get(timeout=10)


@pytest.fixture(params=[OLD, NEW], scope="module")
def guarded(
    mosquittos: dict[str, Mosquitto], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Broker]:
    """A broker of either version with an account of each kind."""
    directory = tmp_path_factory.mktemp(request.param) / "broker"
    with Broker(mosquittos[request.param], directory, pis=("pi1", "pi2"), readers=[READER]) as broker:
        yield broker


def visitor(broker: Broker, user: str, *, client_id: str = "", pi_port: bool = False) -> Visitor:
    """Return somebody with the user's password and, for a Pi, its own id."""
    bound = client_id or (user if user in {"pi1", "pi2"} else f"test-{user}")
    return Visitor(broker.pi_port if pi_port else broker.port, user, broker.passwords[user], bound)


@pytest.mark.parametrize("pi_port", [False, True])
@pytest.mark.parametrize("user", MAY_WRITE)
def test_an_account_writes_what_it_may_and_nothing_else(guarded: Broker, user: str, pi_port: bool) -> None:
    with visitor(guarded, user, pi_port=pi_port) as somebody:
        assert somebody.welcome
        written = {topic for topic in TOPICS if somebody.may_write(topic)}
    assert written == MAY_WRITE[user]


@pytest.mark.parametrize("pi_port", [False, True])
@pytest.mark.parametrize("user", MAY_READ)
def test_an_account_reads_what_it_may_and_nothing_else(guarded: Broker, user: str, pi_port: bool) -> None:
    with visitor(guarded, user, pi_port=pi_port) as somebody:
        granted = {topic for topic in (*TOPICS, *WILDCARDS) if somebody.may_read(topic)}
    assert granted == MAY_READ[user]


def test_a_reader_gets_the_results_of_all_pis_and_what_is_retained(guarded: Broker) -> None:
    with visitor(guarded, ADMIN) as admin, visitor(guarded, READER, client_id="fresh") as board:
        assert admin.may_write("posture/offloader/status", retain=True)
        assert board.may_read("posture/offloader/status")
        assert board.may_read("posture/results/#")
        assert admin.may_write("posture/results/pi2")
        assert [board.messages.get(timeout=5).topic for _ in range(2)] == [
            "posture/offloader/status",
            "posture/results/pi2",
        ]


@pytest.mark.parametrize("user", ["pi1", "pi2"])
def test_a_pi_has_its_own_id_only(guarded: Broker, user: str) -> None:
    for client_id in IDS:
        with visitor(guarded, user, client_id=client_id) as somebody:
            assert somebody.welcome == (client_id == user), client_id


def test_at_the_pis_port_any_id_is_taken_for_the_users_name(guarded: Broker) -> None:
    for client_id in IDS:
        before = len(guarded.log.read_text())
        with visitor(guarded, "pi1", client_id=client_id, pi_port=True) as somebody:
            assert somebody.welcome
        assert " as pi1 (" in guarded.log.read_text()[before:]


@pytest.mark.parametrize(
    ("user", "password"),
    [(None, None), ("pi1", None), ("pi1", ""), ("pi1", "pi1"), ("stranger", "x"), ("posture-analyzer", "x"), ("", "")],
)
@pytest.mark.parametrize("pi_port", [False, True])
def test_strangers_and_wrong_passwords_are_refused(
    guarded: Broker, user: str | None, password: str | None, pi_port: bool
) -> None:
    with Visitor(guarded.pi_port if pi_port else guarded.port, user, password, "pi1") as somebody:
        assert not somebody.welcome


def test_an_account_has_its_own_password_only(guarded: Broker) -> None:
    for user in MAY_WRITE:
        for other, password in guarded.passwords.items():
            with Visitor(guarded.port, user, password, "pi1" if user == "pi1" else "pi2") as somebody:
                assert somebody.welcome == (other == user), (user, other)


def test_a_pi_cannot_empty_a_streams_queue(guarded: Broker) -> None:
    open_session(guarded, "pi1")
    with Camera(guarded, "pi1") as camera:
        camera.send(shots(5))
    for user in ("pi1", "pi2"):
        with visitor(guarded, user, client_id="posture-stream-pi1") as somebody:
            assert not somebody.welcome
    assert left_in_session(guarded, "pi1") == 5


def test_another_password_counts_from_the_next_start_on_and_nothing_is_lost(each_broker: Broker) -> None:
    open_session(each_broker, "pi1")
    with Camera(each_broker, "pi1") as camera:
        camera.send(shots(5))
    former = dict(each_broker.passwords)
    each_broker.passwords |= {"pi1": "another", ANALYZER: "and another"}
    each_broker.stop()
    each_broker.start()
    for user in ("pi1", ANALYZER):
        with Visitor(each_broker.port, user, former[user], "pi1") as somebody:
            assert not somebody.welcome
    with Camera(each_broker, "pi1") as camera:
        camera.send(shots(2))
    assert left_in_session(each_broker, "pi1") == 7


def test_what_waits_for_an_account_that_is_gone_goes_to_the_one_that_takes_its_session(each_broker: Broker) -> None:
    """As the queue of `posture-analyzer`, the only account that analyzers once had."""
    open_session(each_broker, "pi1")
    with visitor(each_broker, ADMIN, client_id="posture-stream-pi1") as former:
        assert former.may_read("images/pi1")
    with Camera(each_broker, "pi1") as camera:
        camera.send(shots(3))
    del each_broker.passwords[ADMIN]
    each_broker.stop()
    each_broker.start()
    assert left_in_session(each_broker, "pi1") == 3


def written_by_the_role(directory: Path, secrets: Path, **variables: Any) -> dict[str, Any]:
    """Return the accounts that the role writes for pi1, with what is in `secrets` and these variables."""
    file = directory / "accounts.json"
    roles = Path(__file__).parents[2] / "roles"
    files = [roles / role / kind / "main.yml" for role in ("common", "broker") for kind in ("defaults", "vars")]
    write = {"content": "{{ __broker_accounts | to_nice_json }}", "dest": str(file), "mode": "0600"}
    settings = {"posture_secrets_dir": str(secrets), **variables}
    ran = run_play(
        directory,
        [{"ansible.builtin.copy": write}],
        groups=("pis",),
        arguments=["-e", "pi_id=pi1", *(f"-e@{each}" for each in files), "-e", json.dumps(settings)],
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    accounts: dict[str, Any] = json.loads(file.read_text())
    return accounts


def test_the_role_gives_each_account_its_password(tmp_path: Path, each_broker: Broker) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for user in ("pi1", ANALYZER, READER):
        (secrets / f"mqtt-{user}.txt").write_text(f"{user}-generated\n")
    cameras = {"desk-7": "desk-7-given"}
    accounts = written_by_the_role(tmp_path, secrets, posture_mqtt_readers=[READER], posture_camera_passwords=cameras)
    generated = {each["username"] for each in accounts["clients"] if each["iterations"] == 101}
    assert generated == {"pi1", ANALYZER, READER}
    each_broker.stop()
    each_broker.accounts = accounts
    each_broker.start()
    for user in generated:
        with Visitor(each_broker.port, user, f"{user}-generated", user) as somebody:
            assert somebody.welcome, user
    with Visitor(each_broker.port, "desk-7", "desk-7-given", "desk-7") as somebody:
        assert somebody.welcome
        assert somebody.may_write("images/desk-7")


def test_a_given_password_counts_and_is_stretched(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for user in ("pi1", ANALYZER):
        (secrets / f"mqtt-{user}.txt").write_text(f"{user}-generated")
    before = written_by_the_role(tmp_path, secrets)
    after = written_by_the_role(
        tmp_path, secrets, posture_pi_password="mine", posture_mqtt_analyzer_passwords={"pi1": "mine"}
    )
    assert {each["iterations"] for each in before["clients"]} == {101}
    assert {each["iterations"] for each in after["clients"]} == {10_000}
    assert before == written_by_the_role(tmp_path, secrets)
