"""From a published image to its row, its picture and its result."""

import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.integration.conftest import Station
from tests.support import programs
from tests.support.brokers import Broker
from tests.support.cameras import Camera, Results, left_in_session, open_session
from tests.support.databases import Database
from tests.support.images import Shot, huge_jpeg, nobody, numbered, photograph, shots
from tests.support.programs import Program
from tests.support.waiting import wait_until


def content_key(pi_id: str, data: bytes) -> str:
    return hashlib.sha256(f"images/{pi_id}".encode() + data).hexdigest()


@pytest.mark.parametrize(
    ("pi_id", "v5", "raw"),
    [("base64", True, False), ("raw", True, True), ("bare", False, False), ("bareraw", False, True)],
)
def test_an_image_becomes_a_row_a_picture_and_a_result(station: Station, pi_id: str, v5: bool, raw: bool) -> None:
    shot = Shot(data=photograph("camera"), filename="my desk.jpg")
    key = shot.image_id if v5 else content_key(pi_id, shot.data)
    station.send(pi_id, shot, v5=v5, raw=raw)
    [row] = station.wait_rows(pi_id)

    assert row["image_id"] == key
    assert row["posture_status"] == "Bad"
    assert row["landmarks_detected"] is True
    assert 55 <= row["neck_angle"] <= 75
    assert row["body_angle"] > 10
    assert row["uncertainty"] >= 0
    assert row["confidence"] in {"sure", "uncertain"}
    assert row["processed_by"] == "test-node"
    assert row["stream"] == "all"
    assert 5 < row["inference_ms"] < 5000
    assert row["received_time"] <= row["analyzed_time"]
    if v5:
        assert row["filename"] == "my desk.jpg"
        assert row["captured_time"] == shot.captured_at
    else:
        assert row["captured_time"] is None

    [picture] = (station.images / f"analyzed_images_from_{pi_id}").iterdir()
    assert picture.name.endswith(f"-{hashlib.sha256(key.encode()).hexdigest()[:12]}.jpg")
    assert set(picture.stem) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    annotated = cv2.imread(str(picture))
    assert annotated is not None
    assert annotated.shape == (512, 512, 3)

    [result] = station.wait_results(pi_id)
    del row["id"]
    assert result.keys() == row.keys()
    assert {name: as_json(value) for name, value in row.items()} == pytest.approx(
        {name: parsed(value) for name, value in result.items()}
    )
    assert not station.uncommitted


def as_json(value: Any) -> Any:
    return value.timestamp() if isinstance(value, datetime) else value


def parsed(value: Any) -> Any:
    """Times back to seconds; all other strings as they are."""
    try:
        return datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError):
        return value


def test_a_repeated_image_id_is_confirmed_again_and_not_analysed_again(station: Station) -> None:
    shot = Shot(data=photograph("camera", size=(160, 120)))
    station.send("twice", shot)
    [first] = station.wait_results("twice", 1)
    [picture] = (station.images / "analyzed_images_from_twice").iterdir()
    written = picture.stat().st_ino, picture.stat().st_mtime_ns
    station.send("twice", shot)
    _, second = station.wait_results("twice", 2)
    assert second == first
    assert (picture.stat().st_ino, picture.stat().st_mtime_ns) == written, "it was analysed again"
    assert len(station.rows("twice")) == 1


def test_repeats_in_one_batch_make_one_row(station: Station) -> None:
    shot = Shot(data=nobody())
    station.send("burst", *[shot] * 12, last := Shot(data=nobody()))
    station.wait_result(shot)
    station.wait_result(last)
    assert len(station.rows("burst")) == 2


def test_identical_bytes_without_an_id_are_one_image(station: Station) -> None:
    shot = Shot(data=numbered(nobody(), 1))
    station.send("same", shot, v5=False)
    first, *_ = station.wait_results("same", 1)
    station.send("same", shot, v5=False, raw=True)
    _, again = station.wait_results("same", 2)
    assert again == first
    station.send("same", Shot(data=numbered(nobody(), 2)), v5=False)
    station.wait_results("same", 3)
    assert len(station.rows("same")) == 2


def test_two_pis_may_use_the_same_image_id(station: Station) -> None:
    shot = Shot(data=nobody())
    station.send("left", shot)
    station.send("right", shot)
    assert station.wait_rows("left")[0]["image_id"] == station.wait_rows("right")[0]["image_id"]


def test_foreign_ids_are_taken_by_stream_all(station: Station) -> None:
    station.send("Lab_Cam-7", Shot(data=nobody()))
    [row] = station.wait_rows("Lab_Cam-7")
    assert row["posture_status"] == "No person detected"
    assert (station.images / "analyzed_images_from_Lab_Cam-7").is_dir()


@pytest.mark.parametrize("pi_id", ["..", "a b", "x" * 65, "ä", "$(id)"])
def test_any_other_topic_is_logged_and_acknowledged(station: Station, pi_id: str) -> None:
    before = len(station.analyzer.output)
    station.send(pi_id, Shot(data=nobody()))
    wait_until(
        lambda: f"images/{pi_id}" in station.analyzer.output[before:], timeout=10, describe=f"a log line about {pi_id}"
    )
    station.send("after", good := Shot(data=nobody()))
    station.wait_result(good)
    assert not station.rows(pi_id)
    assert not list(station.images.parent.glob("analyzed_images_from*"))


def test_a_topic_below_the_streams_never_reaches_a_file(station: Station) -> None:
    station.send("x", Shot(data=nobody()), topic="images/../x")
    station.send("after", good := Shot(data=nobody()))
    station.wait_result(good)
    assert not station.rows("x")
    assert not station.rows("../x")
    assert not (station.images.parent / "x").exists()


@pytest.mark.parametrize("filename", ["../../etc/passwd", "/abs.jpg", ".", "", "ü" * 200, "%s'\"; DROP TABLE"])
def test_a_hostile_filename_stands_in_the_row_and_stays_out_of_the_path(station: Station, filename: str) -> None:
    shot = Shot(data=nobody(), filename=filename)
    pi_id = f"hostile{hashlib.sha256(filename.encode()).hexdigest()[:8]}"
    station.send(pi_id, shot)
    [row] = station.wait_rows(pi_id)
    assert (row["filename"] or "") == filename
    [picture] = (station.images / f"analyzed_images_from_{pi_id}").iterdir()
    assert picture.name.endswith(f"-{hashlib.sha256(shot.image_id.encode()).hexdigest()[:12]}.jpg")


@pytest.mark.parametrize(
    "captured_at",
    ["", "yesterday", "2026-11-22T10:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30"],
)
def test_a_strange_time_of_capture_does_not_block_the_stream(station: Station, captured_at: str) -> None:
    pi_id = f"time{hashlib.sha256(captured_at.encode()).hexdigest()[:8]}"
    shot = Shot(data=nobody(), captured_at=captured_at)
    station.send(pi_id, shot)
    station.wait_result(shot)
    station.send(pi_id, shot, good := Shot(data=nobody()))  # the repeat is answered from the row
    station.wait_result(good)
    assert len(station.wait_results(pi_id, 3)) == 3


def test_an_image_id_that_is_no_uuid_does_not_count(station: Station) -> None:
    shot = Shot(data=nobody(), image_id="../../1")
    station.send("noid", shot)
    [row] = station.wait_rows("noid")
    assert row["image_id"] == content_key("noid", shot.data)


def test_a_pi_may_not_speak_for_another(broker: Broker) -> None:
    with Camera(broker, "pi1") as camera, pytest.raises(RuntimeError, match="Not authorized"):
        camera.send(shots(1), topic="images/pi2")


def test_a_pi_cannot_take_a_streams_session(broker: Broker) -> None:
    open_session(broker, "pi1")
    with Camera(broker, "pi1") as camera:
        camera.send(shots(3))
    # A clean start under the stream's client id: elsewhere it would end the session and lose what waits in it.
    with Camera(broker, "pi1", client_id="posture-stream-pi1"):
        pass
    assert left_in_session(broker, "pi1") == 3


def test_sigterm_finishes_commits_and_acknowledges(
    each_broker: Broker,
    database: Database,
    run: Callable[[Program], Program],
    tmp_path: Path,
) -> None:
    sent = 150
    open_session(each_broker, "pi1")
    with Camera(each_broker, "pi1") as camera, Results(each_broker) as results:
        camera.send(shots(sent))
        analyzer = run(programs.analyzer(each_broker, database, tmp_path))
        wait_until(lambda: database.count() > 20, timeout=20, describe="20 rows")
        assert analyzer.terminate() == 0
        done = database.count()
        assert done < sent, "nothing was left to stop in the middle of: send more images"
        wait_until(lambda: len(results.messages) == done, timeout=5, describe="a result for each row")
    assert left_in_session(each_broker, "pi1") == sent - done


def test_sigterm_waits_for_the_image_in_work(
    broker: Broker, database: Database, run: Callable[[Program], Program], tmp_path: Path
) -> None:
    analyzer = run(programs.analyzer(broker, database, tmp_path))
    with Camera(broker, "pi1") as camera:
        camera.send([Shot(data=huge_jpeg(4096, 4096))])
    in_work = re.compile(r"^posture_images_in_work 1\.0$", re.MULTILINE)
    wait_until(lambda: in_work.search(analyzer.get("/metrics")[1]), timeout=20, describe="the picture is in work")
    assert database.count() == 0, "the picture is too quick to be stopped at"
    assert analyzer.terminate() == 0
    assert database.count() == 1
    assert left_in_session(broker, "pi1") == 0
