"""What an analyzer leaves on its disk with each of POSTURE_PICTURES: looked for in every file, whatever its name."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from posture_analyzer import privacy

from tests.support import programs
from tests.support.brokers import Broker
from tests.support.cameras import Camera, open_session
from tests.support.databases import Database
from tests.support.images import Shot, photograph
from tests.support.programs import Program
from tests.support.waiting import wait_until


def marked() -> bytes:
    """Return a photograph of a person with stripes over all of it that survive any JPEG."""
    pixels = cv2.imdecode(np.frombuffer(photograph("camera"), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    stripes = np.arange(pixels.shape[1]) % 32 < 6
    pixels[:, stripes] = (0, 0, 255)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def marks(picture: Path) -> int:
    pixels = cv2.imread(str(picture))
    assert pixels is not None, picture
    red = (pixels[:, :, 2].astype(int) - pixels[:, :, 1]) > 120
    return int((red[100:].mean(axis=0) > 0.4).sum())


@pytest.mark.parametrize(("pictures", "kept", "shown"), [("all", 1, True), ("skeleton", 1, False), ("none", 0, False)])
@pytest.mark.parametrize("refused", [False, True])
def test_only_what_is_to_be_kept_is_on_the_disk(
    broker: Broker,
    database: Database,
    tmp_path: Path,
    run: Callable[[Program], Program],
    pictures: str,
    kept: int,
    shown: bool,
    refused: bool,
) -> None:
    if refused:
        database.execute("ALTER TABLE posture_results ADD CHECK (pi_id <> 'pi1' OR filename <> 'me.jpg')")
    open_session(broker, "pi1")
    program = run(programs.analyzer(broker, database, tmp_path, PICTURES=pictures))
    with Camera(broker, "pi1") as camera:
        camera.send([Shot(data=marked(), filename="me.jpg")])
    done = "it is kept as" if refused else None
    wait_until(
        lambda: done in program.output if done else database.count() == 1,
        timeout=30,
        describe=lambda: f"the image is settled: {program.output[-1000:]}",
    )
    program.terminate()
    files = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    jpegs = [path for path in files if path.read_bytes().startswith(b"\xff\xd8")]
    assert len(jpegs) == kept
    assert [path.suffix for path in files if path not in jpegs] == ([".json"] if refused else [])
    assert all((marks(path) > 5) == shown for path in jpegs)
    if pictures == "skeleton":
        pixels = cv2.imread(str(jpegs[0]))
        assert pixels is not None
        assert np.median(pixels[100:]) == pytest.approx(privacy.GREY, abs=2)
