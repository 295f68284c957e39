"""The process in which pictures are decoded: the same picture as without it, and no way to take the analyzer along."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from posture_analyzer import picture, sandbox
from posture_analyzer.angles import Posture
from posture_analyzer.annotate import annotate
from posture_analyzer.sandbox import EndedError, KilledError, Sandbox
from posture_analyzer.settings import AnalysisSettings

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
    annotated = box.annotate(landmarks, GOOD)
    annotate(pixels, landmarks * (640 / 512, 480 / 384, 1), GOOD)
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
    os.kill(box._process.pid, signal.SIGKILL)
    with pytest.raises(KilledError, match="short of memory"):
        box.open(CAMERA)
    assert works(box)


def test_a_crash_while_drawing_costs_the_picture(box: Sandbox) -> None:
    box.open(CAMERA)
    os.kill(box._process.pid, signal.SIGSEGV)
    with pytest.raises(EndedError, match="drawing it crashed"):
        box.annotate(None, GOOD)
    box.open(nobody())
    assert box.annotate(None, GOOD).startswith(b"\xff\xd8")


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
    from posture_analyzer.analysis import Analyst

    with Analyst(AnalysisSettings(passes=1)) as analyst:
        os.kill(analyst._sandbox._process.pid, signal.SIGKILL)
        assert analyst.analyse(CAMERA).posture.posture_status == "Bad"
        os.kill(analyst._sandbox._process.pid, signal.SIGSEGV)
        found = analyst.analyse(CAMERA)
        assert (found.posture.posture_status, found.ended) == ("Undecodable image", True)
        assert analyst.analyse(CAMERA).posture.posture_status == "Bad"
