"""A camera that hangs on its side: turned by its Pi it measures as an upright one does; if not, that is told once."""

from pathlib import Path

import cv2

from tests.support import programs
from tests.support.brokers import Broker
from tests.support.databases import Database
from tests.support.images import SAMPLES, numbered
from tests.support.waiting import wait_until

TOLD = "as if its camera hung wrong; turn the camera or set posture_camera_rotate for that Pi"


def on_its_side(directory: Path, count: int) -> Path:
    """Make a directory of pictures of somebody upright, turned to the left."""
    upright = cv2.imread(str(SAMPLES / "camera-upright.jpg"))
    assert upright is not None
    jpeg = cv2.imencode(".jpg", cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE))[1].tobytes()
    directory.mkdir()
    for number in range(count):
        (directory / f"{number:02}.jpg").write_bytes(numbered(jpeg, number))
    return directory


def test_a_camera_on_its_side_is_turned_by_its_pi_or_told_once(
    broker: Broker, database: Database, tmp_path: Path
) -> None:
    source = on_its_side(tmp_path / "source", 30)
    with (
        programs.analyzer(broker, database, tmp_path, stream="all") as analyzer,
        programs.publisher(broker, tmp_path / "pi1", pi_id="pi1", source=source, CAMERA_ROTATE="90"),
        programs.publisher(broker, tmp_path / "pi2", pi_id="pi2", source=source),
    ):
        wait_until(lambda: database.count() == 60, timeout=60, describe=lambda: analyzer.output[-2000:])
        rows = database.rows()
        assert {row["posture_status"] for row in rows if row["pi_id"] == "pi1"} == {"Good"}
        assert max(row["body_angle"] for row in rows if row["pi_id"] == "pi1") < 10
        assert {row["posture_status"] for row in rows if row["pi_id"] == "pi2"} == {"Bad"}
        assert analyzer.output.count(TOLD) == 1
        assert "pi2: the body is over 60 degrees from the vertical in" in analyzer.output
    upright = cv2.imread(str(next((tmp_path / "images/analyzed_images_from_pi1").iterdir())))
    sample = cv2.imread(str(SAMPLES / "camera-upright.jpg"))
    assert upright is not None
    assert sample is not None
    assert upright.shape == sample.shape
    assert cv2.absdiff(upright[60:], sample[60:]).mean() < 15, "the annotated picture is upright as well"
