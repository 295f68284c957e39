"""An image that is in work whenever an analyzer dies gets its row at the third start, and what waited gets its own."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from posture_analyzer import estimator
from posture_analyzer.picture import Pixels
from posture_analyzer.run import Analyzer
from posture_analyzer.settings import AnalyzerSettings
from posture_analyzer.trial import Note, Trial
from posture_common import mqtt
from posture_common.service import FailedError, Stop
from pydantic import SecretStr

from tests.support import programs
from tests.support.brokers import ADMIN, Broker, analyzer_user
from tests.support.cameras import Camera, open_session
from tests.support.databases import Database
from tests.support.hostile import heavy_jpeg
from tests.support.images import Shot, nobody, numbered, photograph
from tests.support.mosquitto import NEW, Mosquitto
from tests.support.programs import Program
from tests.support.sessions import retained
from tests.support.waiting import free_port, wait_until

TOPIC = "posture/streams/pi1/trial"


def in_work(program: Program) -> bool:
    return re.search(r"^posture_images_in_work [1-9]", program.get("/metrics")[1], re.MULTILINE) is not None


def test_an_image_in_work_at_two_deaths_gets_its_row_untried_at_the_third_start(
    each_broker: Broker, database: Database, tmp_path: Path
) -> None:
    killer, waiting = Shot(data=heavy_jpeg()), Shot(data=numbered(nobody(), 1))
    open_session(each_broker, "pi1")
    with Camera(each_broker, "pi1") as camera:
        camera.send([killer])
        for node in ("nuc", "agx"):
            with programs.analyzer(each_broker, database, tmp_path, WORKERS="1", NODE=node) as program:
                if node == "nuc":
                    wait_until(lambda: in_work(program), timeout=20, describe=lambda: f"work: {program.output[-2000:]}")
                else:
                    camera.send([waiting])
                    wait_until(
                        lambda: killer.image_id in str(retained(each_broker, TOPIC)),
                        timeout=20,
                        describe=lambda: f"a note: {program.output[-2000:]}",
                    )
                assert database.count() == 0
                program.kill()

        with programs.analyzer(each_broker, database, tmp_path, WORKERS="1", NODE="orin") as program:
            wait_until(lambda: database.count() == 2, timeout=20, describe=lambda: program.output[-3000:])
            rows = {row["image_id"]: row for row in database.rows()}
            assert rows[killer.image_id]["posture_status"] == "Undecodable image"
            assert rows[killer.image_id]["inference_ms"] is None
            assert rows[waiting.image_id]["posture_status"] == "No person detected"
            assert re.search(r"shot\.jpg of pi1: two analyzers ended while", program.output)
            camera.send([again := Shot(data=killer.data)])
            wait_until(lambda: database.count() == 3, timeout=20, describe="the same picture as another image")
            [row] = [row for row in database.rows() if row["image_id"] == again.image_id]
            assert row["posture_status"] == "No person detected"
            assert program.terminate() == 0
    assert retained(each_broker, TOPIC) is None, "the analyzer ended well and left a note"


def test_one_death_is_forgiven(broker: Broker, database: Database, tmp_path: Path) -> None:
    open_session(broker, "pi1")
    with Camera(broker, "pi1") as camera:
        camera.send([Shot(data=heavy_jpeg())])
    with programs.analyzer(broker, database, tmp_path, WORKERS="1") as program:
        wait_until(lambda: in_work(program), timeout=20, describe=lambda: f"work: {program.output[-2000:]}")
        program.kill()
        program.start()
        wait_until(lambda: database.count() == 1, timeout=20, describe=lambda: program.output[-3000:])
        assert database.rows()[0]["posture_status"] == "No person detected"
        note = Note.parse(retained(broker, TOPIC) or b"")
        assert note is not None
        assert note.alone is None
        assert program.terminate() == 0
    assert retained(broker, TOPIC) is None


def test_a_broker_that_refuses_the_note_does_not_stop_the_stream(
    mosquittos: dict[str, Mosquitto], database: Database, tmp_path: Path
) -> None:
    broker = Broker(mosquittos[NEW], tmp_path / "broker", pis=["pi1"])
    broker.deny(analyzer_user("pi1"), "publishClientSend", TOPIC)
    with (
        broker,
        programs.analyzer(broker, database, tmp_path) as program,
        Camera(broker, "pi1") as camera,
    ):
        program.wait_ready()
        camera.send([Shot(data=nobody())])
        wait_until(lambda: database.count() == 1, timeout=20, describe=lambda: program.output[-3000:])
        assert program.terminate() == 0
        assert program.output.count(f"cannot keep a note on {TOPIC}") == 1


def test_an_analyzer_that_was_taken_over_leaves_the_new_owners_note_alone(broker: Broker) -> None:
    def trial() -> Trial:
        address = mqtt.Broker(host="127.0.0.1", port=broker.port, user=ADMIN, password=broker.passwords[ADMIN])
        return Trial(address, stream="pi1", workers=2)

    old, new = trial(), trial()
    old.begin()
    new.begin()
    note = retained(broker, TOPIC)
    assert new.suspects(redelivered=True)
    assert not new.suspects(redelivered=False)
    assert new.suspects(redelivered=True)
    assert not new.suspects(redelivered=True), "the old one had two images in work"
    old.finish()
    assert retained(broker, TOPIC) == note
    new.finish()
    assert retained(broker, TOPIC) is None


class Failing:
    """A pose model that fails at every picture but the black one that warms it up."""

    def landmarks(self, pixels: Pixels) -> None:
        if pixels.any():
            raise RuntimeError("Graph has errors")

    def close(self) -> None:
        pass


def test_an_image_at_which_the_model_fails_is_not_acknowledged_and_gets_its_row_at_the_third_start(
    broker: Broker, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimator, "create", lambda _file: Failing())
    (tmp_path / "images").mkdir()
    settings = AnalyzerSettings(
        stream="pi1",
        mqtt_host="127.0.0.1",
        mqtt_port=broker.port,
        mqtt_user=ADMIN,
        mqtt_password=SecretStr(broker.passwords[ADMIN]),
        database_url=SecretStr(database.url),
        images_dir=tmp_path / "images",
        http_port=free_port(),
        workers=1,
    )
    open_session(broker, "pi1")
    with Camera(broker, "pi1") as camera:
        camera.send([Shot(data=photograph("camera"))])
    for _ in range(2):
        with pytest.raises(FailedError, match="the pose model fails, loaded anew too: Graph has errors"):
            Analyzer(settings, Stop()).run()
        assert database.count() == 0
    stop = Stop()
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(Analyzer(settings, stop).run)
        try:
            wait_until(lambda: database.count() == 1 or third.done(), timeout=20, describe="its row")
        finally:
            stop.request()
        third.result(20)
    assert database.rows()[0]["posture_status"] == "Undecodable image"
    assert retained(broker, TOPIC) is None
