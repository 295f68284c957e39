"""Encoded images to pixels: every kind that a camera may send, and what is refused."""

import contextlib
import random

import cv2
import numpy as np
import pytest
from PIL import Image
from posture_analyzer import picture

from tests.support import images

LIMIT = 50_000_000
WIDTH, HEIGHT = 160, 120

CAMERA = images.photograph("camera", size=(WIDTH, HEIGHT), quality=95)
EXPECTED = picture.read(CAMERA, max_pixels=LIMIT)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    return images.pillow(images.opened(CAMERA).convert(mode), kind, **options)


GOOD = {
    "jpeg": encoded("JPEG"),
    "progressive jpeg": encoded("JPEG", progressive=True),
    "grey jpeg": encoded("JPEG", "L"),
    "cmyk jpeg": encoded("JPEG", "CMYK"),
    "png": encoded("PNG"),
    "grey png": encoded("PNG", "L"),
    "palette png": images.pillow(images.opened(CAMERA).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "png with alpha": encoded("PNG", "RGBA"),
    "grey png with alpha": encoded("PNG", "LA"),
    "16-bit png": images.sixteen_bit_png(CAMERA),
    "16-bit grey png": cv2.imencode(".png", EXPECTED[:, :, 0].astype(np.uint16) * 257)[1].tobytes(),
    "animated png": encoded("PNG", save_all=True, append_images=[images.opened(CAMERA).rotate(90, expand=False)]),
    "webp": encoded("WEBP"),
    "lossless webp": encoded("WEBP", lossless=True),
    "webp with alpha": encoded("WEBP", "RGBA"),
    "bmp": encoded("BMP"),
    "exif-rotated jpeg": images.exif_rotated(CAMERA),
}


def refusal(image: bytes, *, max_pixels: int = LIMIT) -> str:
    with pytest.raises(picture.UndecodableError) as error:
        picture.read(image, max_pixels=max_pixels)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("image", GOOD.values(), ids=GOOD.keys())
def test_every_kind_shows_the_same_picture(image: bytes) -> None:
    pixels = picture.read(image, max_pixels=LIMIT)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert np.abs(pixels.astype(int) - EXPECTED).mean() < 8


@pytest.mark.parametrize("kept", [0.02, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["jpeg", "progressive jpeg", "png", "webp", "lossless webp", "bmp"])
def test_a_truncated_image_is_refused(kind: str, kept: float) -> None:
    image = GOOD[kind]
    assert refusal(image[: int(kept * len(image))])


@pytest.mark.parametrize(
    "start", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF1234WEBP", b"BM", b"BM" + bytes(60)]
)
def test_only_the_start_of_an_image_is_refused(start: bytes) -> None:
    assert refusal(start)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"hello", "not a JPEG, PNG, WebP or BMP image"),
        (encoded("GIF"), "looks like GIF, not a JPEG, PNG, WebP or BMP image"),
        (encoded("TIFF"), "looks like TIFF"),
        (encoded("JPEG2000"), "looks like JPEG 2000"),
        (encoded("AVIF"), "looks like AVIF"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "looks like HTML"),
        (images.jpeg_with_header(0, 0), "header"),
        (images.png_with_header(0, 0), "header"),
        (images.jpeg_with_header(0, 5), "header"),
        (images.jpeg_with_header(65535, 65535), "65535 x 65535 pixels"),
        (images.png_with_header(65535, 65535), "65535 x 65535 pixels"),
        (images.jpeg_with_header(12000, 12000), "12000 x 12000 pixels are more than the 50000000"),
        (images.png_with_header(12000, 12000), "POSTURE_MAX_PIXELS"),
        (images.png_with_header(65501, 1), "a side is longer than 65500"),
    ],
    ids=[
        "text",
        "gif",
        "tiff",
        "jp2",
        "avif",
        "html",
        "0x0 jpeg",
        "0x0 png",
        "0x5",
        "bomb jpeg",
        "bomb png",
        "huge jpeg",
        "huge png",
        "long png",
    ],
)
def test_what_cannot_be_analysed_is_refused(image: bytes, words: str) -> None:
    assert words in refusal(image)


def test_the_limit_is_on_the_pixels() -> None:
    assert picture.read(CAMERA, max_pixels=WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)
    assert f"{WIDTH} x {HEIGHT} pixels" in refusal(CAMERA, max_pixels=WIDTH * HEIGHT - 1)


@pytest.mark.parametrize("kind", ["jpeg", "progressive jpeg", "png", "animated png", "webp", "bmp"])
def test_damaged_bytes_are_read_or_refused(kind: str) -> None:
    chance = random.Random(kind)  # noqa: S311  (no secret)
    for _ in range(60):
        damaged = bytearray(GOOD[kind])
        for _ in range(chance.randint(1, 5)):
            damaged[chance.randrange(min(len(damaged), 600))] = chance.randrange(256)
        try:
            pixels = picture.read(bytes(damaged), max_pixels=LIMIT)
        except picture.UndecodableError:
            continue
        assert pixels.ndim == 3


def test_damaged_frames_of_an_animation_do_not_end_the_process() -> None:
    chance = random.Random(1)  # noqa: S311  (no secret)
    for _ in range(60):
        damaged = bytearray(GOOD["animated png"])
        for _ in range(4):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with contextlib.suppress(picture.UndecodableError):
            picture.read(bytes(damaged), max_pixels=LIMIT)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (1, 1, (512, 512)),
        (1, 5000, (1, 512)),
        (5000, 1, (512, 1)),
        (480, 640, (384, 512)),
        (1080, 1920, (288, 512)),
        (1023, 1023, (512, 512)),
        (1024, 1024, (512, 512)),
        (2049, 5, (512, 1)),
        (511, 513, (510, 512)),
        (512, 300, (512, 300)),
    ],
)
def test_the_longest_side_becomes_512(height: int, width: int, expected: tuple[int, int]) -> None:
    small = picture.resize(np.full((height, width, 3), 77, np.uint8))
    assert small.shape == (*expected, 3)
    assert small.dtype == np.uint8
    assert (small == 77).all()


@pytest.mark.parametrize("side", [300, 700, 1500, 4000])
def test_fine_stripes_become_grey_not_other_stripes(side: int) -> None:
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[:, ::2] = 255
    if side > 1024:
        assert picture.resize(pixels).std() < 40
    assert abs(float(picture.resize(pixels).mean()) - 127.5) < 3


@pytest.mark.parametrize("size", [(480, 640), (481, 641), (1079, 1919), (333, 500)])
def test_a_mirrored_picture_is_resized_to_the_mirror(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    pixels = cv2.GaussianBlur(pixels, (0, 0), 3).astype(np.uint8)
    difference = picture.resize(pixels).astype(int) - picture.resize(np.ascontiguousarray(pixels[:, ::-1]))[:, ::-1]
    assert np.abs(difference).mean() < 1.5


def test_a_picture_comes_back_from_jpeg() -> None:
    again = picture.read(picture.to_jpeg(EXPECTED, quality=95), max_pixels=LIMIT)
    assert np.abs(again.astype(int) - EXPECTED).mean() < 5
    assert len(picture.to_jpeg(EXPECTED, quality=40)) < len(picture.to_jpeg(EXPECTED, quality=90))
