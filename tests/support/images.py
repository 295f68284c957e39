"""Test pictures: variants of the two sample photographs, small ones without a person, and all that is refused."""

import functools
import io
import struct
import uuid
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAMPLES = Path(__file__).parents[2] / "samples"


@dataclass(frozen=True, kw_only=True)
class Shot:
    """An encoded picture as a camera sends it."""

    data: bytes = field(repr=False)
    filename: str = "shot.jpg"
    image_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    captured_at: datetime | str = field(default_factory=lambda: datetime.now(UTC))


@functools.cache
def photograph(name: str, *, size: tuple[int, int] | None = None, quality: int = 85) -> bytes:
    """Return samples/<name>.jpg as JPEG, scaled into `size` (width, height) with its sides padded by their edges."""
    path = SAMPLES / f"{name}.jpg"
    picture = cv2.imread(str(path))
    if picture is None:
        raise FileNotFoundError(f"{path} is missing or no picture: the tests need the sample photographs")
    if size:
        width, height = size
        scale = min(width / picture.shape[1], height / picture.shape[0])
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        across, down = width - picture.shape[1], height - picture.shape[0]
        picture = cv2.copyMakeBorder(
            picture, down // 2, down - down // 2, across // 2, across - across // 2, cv2.BORDER_REPLICATE
        )
    return _jpeg(picture, quality=quality)


@functools.cache
def nobody(width: int = 160, height: int = 120) -> bytes:
    """Return a small JPEG without a person: only the detector looks at it, which is quick."""
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    return _jpeg(np.repeat(np.repeat(ramp[None, :, None], height, axis=0), 3, axis=2), quality=80)


def numbered(jpeg: bytes, number: int) -> bytes:
    """Return the same picture as other bytes: with a comment that holds the number."""
    comment = f"number {number}".encode()
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]


def shots(count: int, *, person_every: int = 20) -> list[Shot]:
    """Return `count` different small shots, one of `person_every` with a person in it."""
    person = photograph("camera", size=(320, 240))
    return [
        Shot(data=numbered(nobody() if number % person_every else person, number), filename=f"shot-{number:05}.jpg")
        for number in range(count)
    ]


def jpeg_with_header(width: int, height: int) -> bytes:
    """Return a JPEG that claims another size than it has (height and width of its frame header, up to 65535)."""
    data = bytearray(nobody())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def png_with_header(width: int, height: int) -> bytes:
    """Return a tiny PNG that claims another size than it has, its checksum right: a decompression bomb's header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 64)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def huge_jpeg(width: int, height: int) -> bytes:
    """Return a real JPEG of that size in one grey: a few hundred kilobytes that decode to hundreds of megabytes."""
    return pillow(Image.new("L", (width, height), 128), "JPEG")


def pillow(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Encode a Pillow picture as JPEG, PNG or GIF."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(jpeg: bytes) -> Image.Image:
    """Return an encoded picture as a Pillow one."""
    return Image.open(io.BytesIO(jpeg))


def exif_rotated(jpeg: bytes) -> bytes:
    """Return the picture lying on its side, with an EXIF tag that turns it upright again."""
    lying = opened(jpeg).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    return pillow(lying, "JPEG", exif=exif.tobytes())


def sixteen_bit_png(jpeg: bytes) -> bytes:
    """Return the picture as PNG with 16 bits a channel."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".png", picture.astype(np.uint16) * 257)[1].tobytes()


def damaged_animation(jpeg: bytes) -> bytes:
    """Return the picture as the first frame of an animated PNG, a byte of it damaged: OpenCV 4.11 would crash."""
    picture = opened(jpeg)
    data = bytearray(pillow(picture, "PNG", save_all=True, append_images=[picture.rotate(90)]))
    second_part = data.index(b"IDAT", data.index(b"IDAT") + 1)
    data[second_part + 17] ^= 1
    return bytes(data)


def side_by_side(jpeg: bytes) -> bytes:
    """Return the picture beside its mirror: two people."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return _jpeg(np.hstack([picture, picture[:, ::-1]]), quality=85)


def _jpeg(picture: NDArray[Any], *, quality: int) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
