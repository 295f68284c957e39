"""picamera2 and the packages that it needs are the distribution's, made for the distribution's numpy: the publisher
sees them from a virtual environment of its own, and brings nothing that hides them.

picamera2 itself is not in Debian's archive. In its place stands a module that imports what is (PyWavelets, in Cython as
the one that picamera2 encodes JPEG with).
"""

import subprocess
from pathlib import Path

from tests.support.checkout import CHECKOUT

PYTHON = "/usr/bin/python3"
PICAMERA2 = """
import pywt
class Picamera2:
    options = {}
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def create_video_configuration(self, **_): return {}
    def configure(self, _): pass
    def start(self): pass
    def capture_file(self, file, **_): file.write(b"a jpeg by " + pywt.__name__.encode())
"""


def check(directory: Path, requirements: str) -> str:
    """Return what `posture-publisher check` says of the camera, in a venv made as the role makes it."""
    venv, spool, modules = directory / "venv", directory / "spool", directory / "modules"
    spool.mkdir()
    modules.mkdir()
    (modules / "picamera2.py").write_text(PICAMERA2)
    subprocess.run([PYTHON, "-m", "venv", "--system-site-packages", venv], check=True)
    pip: list[str | Path] = [
        venv / "bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    subprocess.run([*pip, "--require-hashes", "-r", CHECKOUT / "requirements" / requirements], check=True)
    ran = subprocess.run(
        [venv / "bin/python", "-c", "from posture_publisher.cli import main; main()", "check"],
        env={
            "PYTHONPATH": ":".join(map(str, [CHECKOUT / "common", CHECKOUT / "publisher", modules])),
            "PYTHONDONTWRITEBYTECODE": "1",
            "POSTURE_PI_ID": "pi1",
            "POSTURE_CAMERA": "picamera2",
            "POSTURE_SPOOL_DIR": str(spool),
            "POSTURE_MQTT_PORT": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""
    _, camera, _ = ran.stdout.splitlines()
    return camera


def test_it_takes_pictures_with_the_distributions_packages(tmp_path: Path) -> None:
    camera = check(tmp_path, "publisher.txt")
    assert camera.startswith("camera  ok ")
    assert camera.endswith(".jpg, 14 bytes")


def test_another_numpy_over_the_distributions_is_told_in_one_line(tmp_path: Path) -> None:
    numpy = subprocess.check_output([PYTHON, "-c", "import numpy; print(numpy.__version__)"], text=True)
    camera = check(tmp_path, "publisher-v4l2.txt")
    if not numpy.startswith("1."):  # what is made for 2 works with every later one
        assert camera.startswith("camera  ok ")
        return
    assert camera.startswith(
        "camera  wrong   Python module picamera2 cannot be imported (ValueError: numpy.dtype size "
    )
    assert "requirements/publisher.txt" in camera
