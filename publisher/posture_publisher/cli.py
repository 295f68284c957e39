"""The command posture-publisher."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from posture_common.mqtt import Broker, ConnectionLostError
from posture_common.service import EXIT_REFUSED, LastingError, set_up_logging, stop_on_signals
from posture_common.settings import SettingsError

from .camera import CameraError
from .folder import list_pictures
from .publisher import camera_of, run
from .settings import PublisherSettings
from .spool import check_owner
from .uplink import open_connection

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="posture-publisher",
        description="Takes pictures and publishes each until its row is committed. "
        "Its settings are the environment variables POSTURE_*.",
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=["run", "check"],
        default="run",
        help="run (the default), or check: try the broker, the camera and the spool, and say what is wrong",
    )
    command = parser.parse_args().command
    try:
        settings = PublisherSettings.read()
        set_up_logging(settings.log_level)
        if command == "check":
            return check(settings)
        run(settings, stop_on_signals())
    except (SettingsError, LastingError) as error:
        print(f"posture-publisher: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except OSError as error:
        print(f"posture-publisher: {error}", file=sys.stderr)
        return 1
    return 0


def check(settings: PublisherSettings) -> int:
    """Try broker, camera and spool, print a line about each, and return 0 where all are right, else 1."""
    tries: dict[str, Callable[[PublisherSettings], str]] = {"broker": _broker, "camera": _camera, "spool": _spool}
    wrong = 0
    for name, attempt in tries.items():
        try:
            print(f"{name:8}ok      {attempt(settings)}")
        except (ConnectionLostError, CameraError, LastingError, OSError) as error:
            print(f"{name:8}wrong   {error}")
            wrong += 1
    return 1 if wrong else 0


def _broker(settings: PublisherSettings) -> str:
    broker = Broker.of(settings)
    with open_connection(broker, settings.pi_id, session_s=0):
        return f"{broker} lets {settings.pi_id} in and gives it its results"


def _camera(settings: PublisherSettings) -> str:
    kind, _, place = settings.camera.partition(":")
    if kind == "directory":
        return f"{place} holds {len(list_pictures(Path(place))[0])} pictures"
    with camera_of(settings) as camera:
        picture = camera.take()
    if picture is None:
        return f"{settings.camera} has no new picture"
    return f"{settings.camera} gives {picture.filename}, {len(picture.data)} bytes"


def _spool(settings: PublisherSettings) -> str:
    directory = settings.spool_dir
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"posture")
        file.flush()
    check_owner(directory, settings.pi_id)
    free = shutil.disk_usage(directory).free
    return f"{directory} is writable, {free // 2**20} MiB free of at most {settings.spool_max_bytes // 2**20} needed"
