"""The process in which pictures are decoded: the same picture as without it, and no way to take the analyzer along."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from posture_analyzer import picture, sandbox
from posture_analyzer.analysis import Analyst
from posture_analyzer.angles import Posture
from posture_analyzer.annotate import annotate
from posture_analyzer.sandbox import EndedError, KilledError, Sandbox
from posture_analyzer.settings import AnalysisSettings
from posture_common.service import FailedError

from tests.support.images import huge_jpeg, nobody, photograph
from tests.support.waiting import wait_until

CAMERA = photograph("camera")
GOOD = Posture("Good", 30.4, 5.5, 1.25, "sure", True)
LIMIT = AnalysisSettings().max_pixels


@pytest.fixture
def box() -> Iterator[Sandbox]:
    sandbox_ = Sandbox(max_pixels=LIMIT, jpeg_quality=85)
    yield sandbox_
    sandbox_.close()


def works(box: Sandbox) -> bool:
    return box.open(CAMERA).shape == (512, 512, 3)


def test_it_gives_the_same_small_and_annotated_picture_as_the_functions_do(box: Sandbox) -> None:
    pixels = picture.read(photograph("camera", size=(640, 480)), max_pixels=LIMIT)
    small = picture.resize(pixels)
    assert np.array_equal(box.open(photograph("camera", size=(640, 480))), small)

    landmarks = np.random.default_rng(1).uniform((0, 0, 1), (512, 384, 1), (33, 3))
    annotated = box.annotate([landmarks], GOOD)
    annotate(pixels, [landmarks * (640 / 512, 480 / 384, 1)], GOOD)
    assert annotated == picture.to_jpeg(pixels, quality=85)


def test_a_refused_picture_leaves_it_alive(box: Sandbox) -> None:
    process = box._process.pid
    with pytest.raises(picture.UndecodableError) as error:
        box.open(CAMERA[:5000])
    assert not isinstance(error.value, EndedError)
    assert works(box)
    assert box._process.pid == process


def test_a_picture_that_takes_too_much_processor_time_is_ended(box: Sandbox) -> None:
    with pytest.raises(EndedError, match=r"decoding it took more than 0\.0 s of processor time"):
        box.open(huge_jpeg(4000, 4000), cpu_s=0.02)
    assert works(box)


def test_a_picture_that_takes_too_much_memory_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "memory_limit", lambda _pixels: 8 * 2**20)
    box = Sandbox(max_pixels=LIMIT, jpeg_quality=85)
    try:
        with pytest.raises(EndedError, match="more memory than a picture of POSTURE_MAX_PIXELS"):
            box.open(huge_jpeg(4000, 4000))
        assert works(box)
    finally:
        box.close()


def test_a_sandbox_that_hangs_is_ended(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "WALL_S", 0.3)
    assert works(box)
    os.kill(box._process.pid, signal.SIGSTOP)  # it waits for ever, and uses no processor time
    with pytest.raises(EndedError, match="longer than 0 s"):
        box.open(CAMERA)
    assert works(box)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash_costs_the_picture(box: Sandbox, number: signal.Signals) -> None:
    assert works(box)
    os.kill(box._process.pid, number)
    with pytest.raises(EndedError, match=f"crashed the decoder \\(exit code -{number.value}\\)") as error:
        box.open(CAMERA)
    assert not isinstance(error.value, KilledError)
    assert works(box)


def test_a_kill_from_outside_is_told_apart(box: Sandbox) -> None:
    assert works(box)
    os.kill(box._process.pid, signal.SIGKILL)
    with pytest.raises(KilledError, match="short of memory"):
        box.open(CAMERA)
    assert works(box)


def test_a_crash_while_drawing_costs_the_picture(box: Sandbox) -> None:
    box.open(CAMERA)
    os.kill(box._process.pid, signal.SIGSEGV)
    with pytest.raises(EndedError, match="drawing it crashed"):
        box.annotate([], GOOD)
    box.open(nobody())
    assert box.annotate([], GOOD).startswith(b"\xff\xd8")


def test_the_signals_that_stop_a_group_leave_the_image_in_work_alone(box: Sandbox) -> None:
    assert works(box)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(box._process.pid, number)
    assert works(box)


def test_it_ends_when_the_analyzer_is_gone(box: Sandbox) -> None:
    assert works(box)
    box._pipe.close()
    wait_until(lambda: box._process.poll() == 0, timeout=10, describe="the sandbox ends")


def test_it_has_limits_and_no_secrets(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTURE_DATABASE_URL", "postgresql://posture:geheim@localhost/posture")
    other = Sandbox(max_pixels=LIMIT, jpeg_quality=85)
    try:
        assert works(other)
        proc = Path(f"/proc/{other._process.pid}")
        assert b"geheim" not in (proc / "environ").read_bytes()
        limits = {line[:25].strip(): line[26:].split()[0] for line in (proc / "limits").read_text().splitlines()[1:]}
        assert limits["Max core file size"] == "0"
        assert int(limits["Max data size"]) < 2 * sandbox.memory_limit(LIMIT)
    finally:
        other.close()


def test_modules_in_the_current_directory_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cv2.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    box = Sandbox(max_pixels=LIMIT, jpeg_quality=85)
    try:
        assert works(box)
    finally:
        box.close()


def test_the_analyst_tries_a_picture_again_whose_sandbox_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    with Analyst(AnalysisSettings(passes=1)) as analyst:
        os.kill(analyst._sandbox._process.pid, signal.SIGKILL)
        assert analyst.analyse(CAMERA).posture.posture_status == "Bad"
        os.kill(analyst._sandbox._process.pid, signal.SIGSEGV)
        found = analyst.analyse(CAMERA)
        assert (found.posture.posture_status, found.ended) == ("Undecodable image", True)
        assert analyst.analyse(CAMERA).posture.posture_status == "Bad"


def test_a_sandbox_that_does_not_start_is_no_pictures_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(FailedError, match=r"does not start, it ends with exit code 1: what it said stands above"):
        Analyst(AnalysisSettings(passes=1))


FINE = {"problem": None, "over_limit": False}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"problem": None},
        {"problem": 7, "over_limit": False},
        FINE | {"more": 1},
        FINE | {"shape": ["a"]},
        FINE | {"shape": [513, 512, 3]},
        FINE | {"shape": [9, 9, 1]},
        FINE | {"shape": [-1, 9, 3]},
    ],
)
def test_an_answer_that_makes_no_sense_costs_the_picture(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, said: dict[str, object]
) -> None:
    monkeypatch.setattr(sandbox, "_DEATH_S", 0.1)
    assert works(box)
    with monkeypatch.context() as patch:
        patch.setattr(box._pipe, "receive", lambda **_: (said, bytearray()))
        with pytest.raises(EndedError, match="an answer that cannot be read"):
            box.open(CAMERA)
    assert works(box)


def test_something_that_kills_the_sandbox_again_and_again_ends_the_analyzer(monkeypatch: pytest.MonkeyPatch) -> None:
    with Analyst(AnalysisSettings(passes=1)) as analyst:
        original = analyst._sandbox.open

        def killed(image: bytes, **options: object) -> picture.Pixels:
            os.kill(analyst._sandbox._process.pid, signal.SIGKILL)
            return original(image)

        monkeypatch.setattr(analyst._sandbox, "open", killed)
        with pytest.raises(FailedError, match=r"twice at one image, which is not acknowledged|does not start"):
            analyst.analyse(CAMERA)
