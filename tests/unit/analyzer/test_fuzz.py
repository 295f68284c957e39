"""Whatever the bytes are: a picture or the one error, and soon. POSTURE_FUZZ=100000 tries that many of them."""

import os
import random
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from posture_analyzer import picture

from tests.support import images

COUNT = int(os.environ.get("POSTURE_FUZZ", "4000"))
LONGEST_S = 1.0
MAX_PIXELS = 16_000_000

SHOWN = images.opened(images.photograph("camera", size=(96, 80), quality=85))
PALETTE = SHOWN.convert("P", palette=Image.Palette.ADAPTIVE)
METADATA = b"Exif\0\0" + images.exif(6)
SEEDS = {
    "jpeg": images.jpeg_with(images.pillow(SHOWN, "JPEG"), images.jpeg_segment(0xE1, METADATA)),
    "progressive jpeg": images.pillow(SHOWN, "JPEG", progressive=True),
    "jpeg with restart markers": images.pillow(SHOWN, "JPEG", restart_marker_blocks=3),
    "cmyk jpeg": images.pillow(SHOWN.convert("CMYK"), "JPEG", optimize=True),
    "mpo": images.pillow(SHOWN, "MPO", save_all=True, append_images=[SHOWN]),
    "png": images.png_with(images.pillow(SHOWN, "PNG"), images.png_chunk(b"eXIf", images.exif(5)), before=b"IEND"),
    "palette png": images.pillow(PALETTE, "PNG", transparency=3),
    "apng": images.pillow(SHOWN, "PNG", save_all=True, append_images=[SHOWN.rotate(90)]),
    "webp": images.webp_with(images.pillow(SHOWN, "WEBP"), after=images.webp_chunk(b"XMP ", images.xmp(7))),
    "lossless webp": images.pillow(SHOWN, "WEBP", lossless=True),
    "webp with alpha": images.pillow(SHOWN.convert("RGBA"), "WEBP"),
    "animated webp": images.pillow(SHOWN, "WEBP", save_all=True, append_images=[SHOWN.rotate(90)]),
    "bmp": images.pillow(SHOWN, "BMP"),
    "palette bmp": images.pillow(PALETTE, "BMP"),
    "rle bmp": images.rle_bmp(96, 80),
}
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)


def some_place(data: bytearray, chance: random.Random) -> int:
    """Return a place, in half of the cases in the header."""
    return chance.randrange(min(len(data), chance.choice((64, 700, len(data), len(data)))))


def set_byte(data: bytearray, chance: random.Random) -> None:
    data[some_place(data, chance)] = chance.randrange(256)


def flip_bit(data: bytearray, chance: random.Random) -> None:
    data[some_place(data, chance)] ^= 1 << chance.randrange(8)


def set_number(data: bytearray, chance: random.Random) -> None:
    place = some_place(data, chance)
    number = struct.pack(chance.choice("<>") + "I", chance.choice(INTERESTING))
    data[place : place + 4] = chance.choice((number, number[2:], number[:2]))


def cut(data: bytearray, chance: random.Random) -> None:
    del data[some_place(data, chance) :]


def take_out(data: bytearray, chance: random.Random) -> None:
    place = some_place(data, chance)
    del data[place : place + chance.choice((1, 2, 4, 30, 500))]


def repeat(data: bytearray, chance: random.Random) -> None:
    place = some_place(data, chance)
    data[place:place] = data[place : place + chance.choice((1, 2, 4, 30, 500))] * chance.choice((1, 2, 50))


def overwrite(data: bytearray, chance: random.Random) -> None:
    place, length = some_place(data, chance), chance.choice((8, 100, 600))
    data[place : place + length] = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    set_byte,
    flip_bit,
    set_number,
    cut,
    take_out,
    repeat,
    overwrite,
)


def with_checksums(png: bytes) -> bytes:
    """Return the PNG with the checksums that its chunks should have, as long as these can be followed."""
    parts, start = [png[:8]], 8
    while start + 12 <= len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4])
        parts += [png[start : end - 4], struct.pack(">I", zlib.crc32(png[start + 4 : end - 4]))]
        start = end
    return b"".join(parts)


def damaged(seed: bytes, chance: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        if data:
            chance.choice(CHANGES)(data, chance)
    if data.startswith(b"\x89PNG") and chance.random() < 0.8:
        return with_checksums(bytes(data))
    return bytes(data)


@pytest.mark.timeout(120 + COUNT // 50)
@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_bytes_are_a_picture_or_the_one_error(kind: str) -> None:
    for number in range(COUNT // len(SEEDS)):
        chance = random.Random(f"{kind} {number}")  # noqa: S311  (no secret)
        image = damaged(SEEDS[kind], chance)
        began = time.process_time()
        try:
            pixels = picture.read(image, max_pixels=MAX_PIXELS, rotate=chance.choice((0, 90, 180, 270)))
        except picture.UndecodableError:
            pass
        else:
            assert pixels.ndim == 3, number
            assert pixels.dtype == np.uint8, number
            assert pixels.size <= 3 * MAX_PIXELS, number
        assert time.process_time() - began < LONGEST_S, number
