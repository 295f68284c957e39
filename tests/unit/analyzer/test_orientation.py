"""A picture is read as viewers show it, wherever its orientation stands; Pillow is the second opinion."""

import itertools
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageOps
from posture_analyzer import picture

from tests.support import images

WIDTH, HEIGHT = 160, 130
CAMERA = images.opened(images.photograph("camera", size=(WIDTH, HEIGHT), quality=95))
JPEG = images.pillow(CAMERA, "JPEG", quality=95)
PNG = images.pillow(CAMERA, "PNG")
WEBP = images.pillow(CAMERA, "WEBP", quality=90)
LOSSLESS = images.pillow(CAMERA, "WEBP", lossless=True)

EXIF, XMP, EXTENSION = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"


def app1(body: bytes) -> bytes:
    return images.jpeg_segment(0xE1, body)


def raw_profile(name: bytes, body: bytes) -> bytes:
    digits = body.hex().encode()
    lines = [digits[start : start + 72] for start in range(0, len(digits), 72)]
    return b"\n" + name + b"\n%8d\n" % len(body) + b"\n".join(lines) + b"\n"


def text(keyword: bytes, value: bytes) -> bytes:
    return images.png_chunk(b"tEXt", keyword + b"\0" + value)


def packed_text(keyword: bytes, value: bytes) -> bytes:
    return images.png_chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(value))


def international_text(keyword: bytes, value: bytes, *, packed: bool = False) -> bytes:
    packing = b"\1\0\0\0" if packed else b"\0\0\0\0"
    return images.png_chunk(b"iTXt", keyword + b"\0" + packing + (zlib.compress(value) if packed else value))


def mpo(block: bytes) -> bytes:
    return images.pillow(CAMERA, "MPO", save_all=True, append_images=[CAMERA.rotate(90)], exif=EXIF + block)


WITH_EXIF: dict[str, Callable[[bytes], bytes]] = {
    "jpeg, first": lambda block: images.jpeg_with(JPEG, app1(EXIF + block)),
    "jpeg, after JFIF": lambda block: images.jpeg_with(JPEG, app1(EXIF + block), before=0xDB),
    "jpeg, before the scan": lambda block: images.jpeg_with(JPEG, app1(EXIF + block), before=0xDA),
    "jpeg, XMP first": lambda block: images.jpeg_with(JPEG, app1(XMP + images.xmp(1)), app1(EXIF + block)),
    "jpeg, XMP extension first": lambda block: images.jpeg_with(
        JPEG, app1(EXTENSION + bytes(50_000)), app1(EXIF + block)
    ),
    "jpeg, ICC and comment first": lambda block: images.jpeg_with(
        JPEG,
        images.jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1broken"),
        images.jpeg_segment(0xFE, b"\xff\xd9"),
        app1(EXIF + block),
    ),
    "jpeg, fill bytes": lambda block: images.jpeg_with(JPEG, b"\xff" * 9 + app1(EXIF + block) + b"\xff" * 3),
    "jpeg, two": lambda block: images.jpeg_with(JPEG, app1(EXIF + block), app1(EXIF + images.exif(3))),
    "jpeg, XMP disagrees": lambda block: images.jpeg_with(JPEG, app1(XMP + images.xmp(6)), app1(EXIF + block)),
    "mpo": mpo,
    "png, before": lambda block: images.png_with(PNG, images.png_chunk(b"eXIf", block)),
    "png, after": lambda block: images.png_with(PNG, images.png_chunk(b"eXIf", block), before=b"IEND"),
    "png, raw profile": lambda block: images.png_with(
        PNG, packed_text(b"Raw profile type exif", raw_profile(b"exif", EXIF + block))
    ),
    "png, raw profile as text": lambda block: images.png_with(
        PNG, text(b"Raw profile type exif", raw_profile(b"exif", EXIF + block))
    ),
    "webp, before": lambda block: images.webp_with(WEBP, before=images.webp_chunk(b"EXIF", block)),
    "webp, after": lambda block: images.webp_with(WEBP, after=images.webp_chunk(b"EXIF", block)),
    "webp, with prefix": lambda block: images.webp_with(WEBP, after=images.webp_chunk(b"EXIF", EXIF + block)),
    "lossless webp": lambda block: images.webp_with(LOSSLESS, after=images.webp_chunk(b"EXIF", block)),
}
WITH_XMP: dict[str, Callable[[bytes], bytes]] = {
    "jpeg": lambda packet: images.jpeg_with(JPEG, app1(XMP + packet)),
    "jpeg, EXIF without": lambda packet: images.jpeg_with(
        JPEG, app1(EXIF + b"II*\0\x08\0\0\0\0\0\0\0\0\0"), app1(XMP + packet)
    ),
    "png": lambda packet: images.png_with(PNG, international_text(b"XML:com.adobe.xmp", packet)),
    "png, packed": lambda packet: images.png_with(PNG, international_text(b"XML:com.adobe.xmp", packet, packed=True)),
    "png, after": lambda packet: images.png_with(PNG, international_text(b"XML:com.adobe.xmp", packet), before=b"IEND"),
    "webp": lambda packet: images.webp_with(WEBP, after=images.webp_chunk(b"XMP ", packet)),
    "lossless webp": lambda packet: images.webp_with(LOSSLESS, before=images.webp_chunk(b"XMP ", packet)),
}


def as_viewers_show(image: bytes) -> NDArray[Any]:
    """Return what Pillow makes of it."""
    shown = images.opened(image)
    shown.load()  # Pillow reads what stands behind the pixels only then.
    return np.asarray(ImageOps.exif_transpose(shown).convert("RGB"))[:, :, ::-1]


def assert_equal(pixels: NDArray[Any], expected: NDArray[Any]) -> None:
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 1.5, "the picture is turned in another way"
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


def read(image: bytes, **options: int) -> NDArray[Any]:
    return picture.read(image, max_pixels=10**6, **options)


@pytest.mark.parametrize("place", WITH_EXIF)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_followed_wherever_it_stands(place: str, orientation: int) -> None:
    for order, kind in itertools.product("<>", (3, 4, 8, 9)):
        image = WITH_EXIF[place](images.exif(orientation, order=order, kind=kind))
        assert_equal(read(image), as_viewers_show(image))
        assert (read(image).shape[0] == WIDTH) is (orientation > 4)


@pytest.mark.parametrize("place", WITH_XMP)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("as_element", [False, True], ids=["attribute", "element"])
def test_xmp_is_followed_where_exif_says_nothing(place: str, orientation: int, as_element: bool) -> None:
    image = WITH_XMP[place](images.xmp(orientation, as_element=as_element))
    assert_equal(read(image), as_viewers_show(image))
    assert (read(image).shape[0] == WIDTH) is (orientation > 4)


@pytest.mark.parametrize("kind", [1, 6], ids=["BYTE", "SBYTE"])
@pytest.mark.parametrize("order", "<>")
def test_a_tag_of_one_byte_is_followed(kind: int, order: str) -> None:
    image = images.jpeg_with(JPEG, app1(EXIF + images.exif(6, order=order, kind=kind)))
    assert_equal(read(image), as_viewers_show(images.jpeg_with(JPEG, app1(EXIF + images.exif(6)))))


@pytest.mark.parametrize(
    ("chunk", "flags"), [(b"EXIF", 0), (b"EXIF", 4), (b"XMP ", 0), (b"XMP ", 8), (b"EXIF", None), (b"XMP ", None)]
)
def test_metadata_that_a_webps_header_does_not_tell_of_are_not_followed(chunk: bytes, flags: int | None) -> None:
    more = images.webp_chunk(chunk, images.exif(6) if chunk == b"EXIF" else images.xmp(6))
    simple = WEBP[:4] + (len(WEBP + more) - 8).to_bytes(4, "little") + WEBP[8:] + more
    image = simple if flags is None else images.webp_with(WEBP, after=more, flags=flags)
    assert_equal(read(image), as_viewers_show(image))
    assert_upright(read(image))


@pytest.mark.parametrize("name", [b"generic", b"generic profile", b"exif", b"APP1"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_imagemagicks_profile_is_followed(orientation: int, name: bytes) -> None:
    profile = packed_text(b"Raw profile type APP1", raw_profile(name, EXIF + images.exif(orientation)))
    expected = as_viewers_show(images.png_with(PNG, images.png_chunk(b"eXIf", images.exif(orientation))))
    assert_equal(read(images.png_with(PNG, profile)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_a_camera_is_turned_clockwise_after_that(orientation: int, rotate: int) -> None:
    image = images.jpeg_with(JPEG, app1(EXIF + images.exif(orientation)))
    assert_equal(read(image, rotate=rotate), np.rot90(as_viewers_show(image), -rotate // 90))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_turned_too(mode: str) -> None:
    image = images.jpeg_with(images.pillow(CAMERA.convert(mode), "JPEG"), app1(EXIF + images.exif(6)))
    assert read(image).shape == (WIDTH, HEIGHT, 3)


UPRIGHT = read(JPEG)
HOSTILE = {
    "no value": b"II*\0\x08\0\0\0\1\0\x12\1\3\0\0\0\0\0\6\0\0\0",
    "0": images.exif(0),
    "9": images.exif(9),
    "-1": images.exif(-1, kind=9),
    "a fraction": images.exif(6).replace(b"\x12\1\3\0", b"\x12\1\5\0"),
    "text": images.exif(6).replace(b"\x12\1\3\0", b"\x12\1\2\0"),
    "an unknown type": images.exif(6).replace(b"\x12\1\3\0", b"\x12\1\xff\xff"),
    "nothing": b"",
    "half a header": b"MM\0*",
    "a directory beyond the end": b"MM\0*\xff\xff\xff\xff",
    "a directory at the end": b"MM\0*\0\0\0\x08",
    "65535 entries": b"MM\0*\0\0\0\x08\xff\xff" + bytes(100),
    "a directory in the header": b"MM\0*\0\0\0\0",
}


@pytest.mark.parametrize("block", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("place", ["jpeg, first", "png, before", "png, after", "png, raw profile", "webp, after"])
def test_metadata_that_mean_nothing_change_nothing(block: bytes, place: str) -> None:
    assert_upright(read(WITH_EXIF[place](block)))


@pytest.mark.parametrize(
    "chunks",
    [
        [packed_text(b"Raw profile type exif", b"no digits at all")],
        [text(b"Raw profile type exif", b"\nexif\n  12\n4z")],
        [images.png_chunk(b"zTXt", b"Raw profile type exif\0\0no zlib")],
        [images.png_chunk(b"zTXt", b"Raw profile type exif")],
        [images.png_chunk(b"iTXt", b"XML:com.adobe.xmp")],
        [images.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0no zlib")],
        [packed_text(b"Raw profile type exif", bytes(100_000_000))],
        [international_text(b"XML:com.adobe.xmp", bytes(100_000_000), packed=True)],
        [packed_text(b"Raw profile type exif", bytes(1_000_000))] * 300,
        [images.png_chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(100_000_000)))],
        [images.png_chunk(b"eXIf", bytes(1_000_000))],
    ],
    ids=itertools.count(),
)
def test_damaged_and_huge_texts_of_a_png_change_nothing_and_cost_little(chunks: list[bytes]) -> None:
    image = images.png_with(PNG, *chunks)
    began = time.process_time()
    tracemalloc.start()
    try:
        assert_upright(read(image))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20_000_000
    assert time.process_time() - began < 1


def assert_upright(pixels: NDArray[Any]) -> None:
    assert pixels.shape == UPRIGHT.shape
    assert np.abs(pixels.astype(int) - UPRIGHT).mean() < 5
