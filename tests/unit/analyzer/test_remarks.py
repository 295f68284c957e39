"""What MediaPipe writes to standard error: nothing of it for people, all of it that matters for the log."""

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from posture_analyzer.remarks import remarks

from tests.support.images import SAMPLES
from tests.unit.analyzer.bundle import write_bundle

KNOWN = [
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1731930035.529357   21253 task_runner.cc:85] GPU suport is not available",
    "W0000 00:00:1795671089.7 1 inference_feedback_manager.cc:114] Feedback manager requires a model with",
    "W0000 00:00:1795671089.8 1 landmark_projection_calculator.cc:186] Using NORM_RECT without IMAGE_DIMENSIONS",
]
WARNING = "W0000 00:00:1795671089.7 1 tensor.cc:1] Something that nobody foresaw"
ERROR = "E0000 00:00:1795671089.8 1 gl.cc:1] Out of memory"

libc = ctypes.CDLL(None)
libc.fputs.argtypes = [ctypes.c_char_p, ctypes.c_void_p]


def write(line: str) -> None:
    """Write the line as C code does."""
    stderr = ctypes.c_void_p.in_dll(libc, "stderr")
    libc.fputs(f"{line}\n".encode(), stderr)


@pytest.mark.parametrize("from_file", [False, True])
def test_the_image_command_writes_nothing_to_standard_error(tmp_path: Path, from_file: bool) -> None:
    environment = dict(os.environ)
    if from_file:
        environment["POSTURE_MODEL_FILE"] = str(tmp_path / "full.task")
        write_bundle(tmp_path / "full.task")
    command = [str(Path(sys.executable).parent / "posture-analyzer"), "image", *map(str, sorted(SAMPLES.glob("*.jpg")))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert "camera-mirrored.jpg  Bad" in done.stdout


def test_remarks_go_nowhere_and_everything_else_into_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with remarks.of_a_new_model():
        for line in (*KNOWN, WARNING, ERROR):
            write(line)
        os.write(2, b"Python's own\n")
    write("as ever")
    assert capfd.readouterr().err == "Python's own\nas ever\n"
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", f"the pose model says: {WARNING}"),
        ("ERROR", f"the pose model says: {ERROR}"),
    ]


def test_a_model_that_cannot_be_made_gives_standard_error_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), remarks.of_a_new_model():
        raise ZeroDivisionError
    write("as ever")
    assert capfd.readouterr().err == "as ever\n"


def test_threads_hold_it_together(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with remarks.of_a_new_model():
            inside.set()
            leave.wait(20)
            write(KNOWN[0])

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(20)
    with remarks.of_a_new_model():
        write(ERROR)
    assert [record.levelname for record in caplog.records] == ["ERROR"], "as soon as one of them is done"
    leave.set()
    thread.join()
    write("as ever")
    assert capfd.readouterr().err == "as ever\n"
