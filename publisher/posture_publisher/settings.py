"""What posture-publisher is told by its environment."""

import re
from pathlib import Path
from typing import Annotated, Literal

from posture_common.disk import DEFAULT_FLOOR, FloorSetting
from posture_common.settings import MAX_IMAGE_BYTES, ImageBytes, PiId, Port, Settings
from pydantic import AfterValidator, Field

_CAMERA = re.compile(r"picamera2|v4l2:/.+|directory:/.+")


def _camera(value: str) -> str:
    if not _CAMERA.fullmatch(value):
        raise ValueError("expected picamera2, v4l2:/dev/video0 or directory:/path/of/pictures (absolute paths)")
    return value


def _rotation(value: int) -> int:
    if value not in {0, 90, 180, 270}:
        raise ValueError("expected 0, 90, 180 or 270: degrees clockwise by which to turn the pictures upright")
    return value


Rotation = Annotated[int, AfterValidator(_rotation)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PublisherSettings(Settings):
    """The publisher's settings; times in seconds, sizes in bytes."""

    http_port: Port = 9320
    pi_id: PiId
    camera: Annotated[str, AfterValidator(_camera)]
    camera_rotate: Rotation = 0
    interval: Seconds = 1.0
    encoding: Literal["base64", "raw"] = "base64"
    spool_dir: Path = Path("/var/lib/posture/spool")
    disk_floor: FloorSetting = DEFAULT_FLOOR
    spool_max_bytes: Annotated[int, Field(ge=1)] = 1024**3
    max_image_bytes: ImageBytes = MAX_IMAGE_BYTES
    window: Annotated[int, Field(ge=1)] = 100
    replay_rounds: Annotated[int, Field(ge=0)] = 1
    confirm_timeout: Seconds = 600.0
    reconnect_timeout: Seconds = 30.0
