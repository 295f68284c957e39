"""An analyzer's control connection and a real broker, without the analyzer around it."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from posture_analyzer import control
from posture_analyzer.control import EpochControl, NoControl, control_of
from posture_analyzer.settings import AnalyzerSettings
from posture_common.epochs import State
from posture_common.service import LastingError, Stop

from tests.support.brokers import Broker, analyzer_user
from tests.support.handovers import STREAM, Assigner
from tests.support.mosquitto import NEW, OLD, Mosquitto
from tests.support.waiting import wait_until

USER = analyzer_user(STREAM)


def settings(broker: Broker, **more: str) -> AnalyzerSettings:
    return AnalyzerSettings.read(
        {
            "POSTURE_STREAM": STREAM,
            "POSTURE_NODE": "node-4",
            "POSTURE_EPOCH": "4",
            "POSTURE_MQTT_HOST": "127.0.0.1",
            "POSTURE_MQTT_PORT": str(broker.port),
            "POSTURE_MQTT_USER": USER,
            "POSTURE_MQTT_PASSWORD": broker.passwords[USER],
            "SUPABASE_HOST": "nowhere",
        }
        | more
    )


@pytest.fixture
def assigner(broker: Broker) -> Iterator[Assigner]:
    with Assigner(broker) as there:
        yield there


@contextmanager
def waiting(held: EpochControl) -> Iterator[list[bool]]:
    """Let another thread wait for its turn; the list has the answer when it came."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(held.await_turn()), daemon=True)
    thread.start()
    yield answers
    thread.join(10)
    assert not thread.is_alive(), "it waits for ever"


@contextmanager
def broker_without(mosquitto: Mosquitto, directory: Path, right: str, topic: str) -> Iterator[Broker]:
    """Start a broker that does not give the analyzers this right."""
    broker = Broker(mosquitto, directory / "broker", pis=(STREAM,))
    broker.deny(USER, right, topic)
    with broker:
        yield broker


def test_without_an_epoch_the_stream_is_always_ours(broker: Broker) -> None:
    with control_of(settings(broker, POSTURE_EPOCH=""), Stop()) as held:
        assert isinstance(held, NoControl)
        assert held.await_turn()
        assert held.trouble() is None
        assert not held.standing_by


def test_malformed_assignments_are_logged_once_and_the_next_good_one_counts(
    broker: Broker, assigner: Assigner, caplog: pytest.LogCaptureFixture
) -> None:
    stop = Stop()
    assigner.say("assignment", b'{"epoch": 5, "node": ')
    with EpochControl(settings(broker), 4, stop) as held, waiting(held) as answers:
        assigner.wait(4, "ready")
        assert held.standing_by
        assigner.say("assignment", b'{"epoch": 5, "node": ')
        assigner.say("assignment", b'{"epoch": 4, "node": null}')
        assert not answers
        assert not stop.requested
        assigner.assign(4)
        wait_until(lambda: answers == [True], timeout=5, describe="its turn")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all(warning.startswith("ignored a message on posture/streams/pi1/assignment: ") for warning in warnings)


def test_an_error_says_gone_and_a_clean_end_says_done(broker: Broker, assigner: Assigner) -> None:
    with pytest.raises(LastingError, match="no table"), EpochControl(settings(broker), 4, Stop()):
        raise LastingError("no table")
    assigner.wait(4, "gone")
    with EpochControl(settings(broker), 4, Stop()):
        pass
    assigner.wait(4, "done")


def test_the_stop_ends_the_wait(broker: Broker, assigner: Assigner) -> None:
    stop = Stop()
    with EpochControl(settings(broker), 4, stop) as held, waiting(held) as answers:
        assigner.wait(4, "ready")
        stop.request()
        wait_until(lambda: answers == [False], timeout=5, describe="the end of the wait")


def test_the_state_is_said_again_after_the_brokers_return(broker: Broker, assigner: Assigner) -> None:
    with EpochControl(settings(broker), 4, Stop()) as held:
        held.say(State.ACTIVE)
        assigner.wait(4, "active")
        broker.stop()
        wait_until(held.trouble, timeout=5, describe="the trouble")
        assigner.forget()
        held.say(State.DRAINING)
        broker.start()
        assigner.wait(4, "draining")
        wait_until(lambda: held.trouble() is None, timeout=5, describe="no trouble")


def test_the_end_waits_for_a_broker_that_is_away_but_not_for_ever(
    broker: Broker, assigner: Assigner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "FAREWELL_TIMEOUT_S", 0.5)
    with EpochControl(settings(broker), 4, Stop()):
        assigner.wait(4, "warming")
        broker.stop()
    assert "could not be told that epoch 4 is done" in caplog.text
    broker.start()
    assigner.wait(4, "done")  # its thread would have gone on, had the process not ended


@pytest.mark.parametrize("which", [OLD, NEW])
def test_an_access_list_that_does_not_let_us_read_is_named(
    mosquittos: dict[str, Mosquitto],
    which: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(control, "ECHO_TIMEOUT_S", 0.3)
    stop = Stop()
    with (
        broker_without(mosquittos[which], tmp_path, "publishClientReceive", f"posture/streams/{STREAM}/#") as broker,
        EpochControl(settings(broker), 4, stop) as held,
        waiting(held) as answers,
    ):
        wait_until(lambda: "access list" in (held.trouble() or ""), timeout=5, describe="the cause")
        assert not answers
        stop.request()


@pytest.mark.parametrize("which", [OLD, NEW])
def test_an_access_list_that_does_not_let_us_write_ends_it(
    mosquittos: dict[str, Mosquitto], which: str, tmp_path: Path
) -> None:
    stop = Stop()
    with (
        broker_without(
            mosquittos[which], tmp_path, "publishClientSend", f"posture/streams/{STREAM}/+/status"
        ) as broker,
        pytest.raises(LastingError, match=r"may not write to posture/streams/pi1/4/status.*access list"),
        EpochControl(settings(broker), 4, stop),
    ):
        assert stop.wait(10)


@pytest.mark.parametrize("which", [OLD, NEW])
def test_an_access_list_that_does_not_let_us_subscribe_is_named(
    mosquittos: dict[str, Mosquitto], which: str, tmp_path: Path
) -> None:
    stop = Stop()
    with (
        broker_without(mosquittos[which], tmp_path, "subscribePattern", f"posture/streams/{STREAM}/#") as broker,
        pytest.raises(LastingError, match=r"refuses user 'posture-analyzer-pi1'.*access list"),
        EpochControl(settings(broker), 4, stop),
    ):
        assert stop.wait(10)
