"""Damage is seen, whatever the end of the data looks like, and what only looks like damage is no damage."""

import os
import re
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from posture_analyzer import jpeg, picture

from tests.support import images

LIMIT = 50_000_000
NOISE = np.random.default_rng(1).bytes(300_000)
PHOTO = images.opened(images.photograph("camera"))


def jpeg_of(mode: str = "RGB", **options: Any) -> bytes:
    return images.pillow(PHOTO.convert(mode), "JPEG", **{"quality": 85, **options})


JPEGS = {
    "baseline": jpeg_of(),
    "optimised": jpeg_of(optimize=True),
    "progressive": jpeg_of(progressive=True),
    "4:4:4": jpeg_of(subsampling=0),
    "grey": jpeg_of("L"),
    "cmyk": jpeg_of("CMYK"),
    "quality 5": jpeg_of(quality=5),
    "restart markers": jpeg_of(restart_marker_rows=1),
    "many restart markers": jpeg_of(restart_marker_blocks=4),
}
BASELINE = JPEGS["baseline"]
RESTARTS = JPEGS["many restart markers"]
PNG = images.pillow(PHOTO, "PNG")
WEBPS = {
    "lossy": images.pillow(PHOTO, "WEBP", quality=80),
    "lossy, quality 30": images.pillow(PHOTO, "WEBP", quality=30),
    "with alpha": images.pillow(PHOTO.convert("RGBA"), "WEBP", quality=80),
    "lossless": images.pillow(PHOTO, "WEBP", lossless=True, method=2),
}


def read(image: bytes) -> NDArray[Any]:
    return picture.read(image, max_pixels=LIMIT)


def refusal(image: bytes) -> str:
    with pytest.raises(picture.UndecodableError) as error:
        read(image)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
    return str(error.value)


def is_refused(image: bytes) -> bool:
    try:
        read(image)
    except picture.UndecodableError:
        return True
    return False


def is_harmless(image: bytes, whole: bytes) -> bool:
    """Say whether a damaged image is refused, or shows what the whole one does."""
    return is_refused(image) or bool(np.abs(read(image).astype(int) - read(whole)).mean() < 3)


def data_of(image: bytes) -> tuple[int, int]:
    """Return where a JPEG's first scan data begin and the last ones end."""
    scan = image.index(b"\xff\xda")
    return scan + 2 + int.from_bytes(image[scan + 2 : scan + 4]), len(image) - 2


def cut_out(image: bytes, place: int, length: int) -> bytes:
    return image[:place] + image[place + length :]


def overwritten(image: bytes, place: int, new: bytes) -> bytes:
    return image[:place] + new + image[place + len(new) :]


def places(image: bytes, length: int, *, count: int = 8) -> list[int]:
    """Return places in a JPEG's data, from the first to the last possible one."""
    start, end = data_of(image)
    return [int(place) for place in np.linspace(start, end - length, count)]


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("length", [512, 1460])
def test_a_packet_that_is_missing_in_a_jpeg_is_seen(kind: str, length: int) -> None:
    """A rare cut goes unseen: the blocks behind it happen to be as many as the missing ones. Most must be seen."""
    image = JPEGS[kind]
    length = min(length, len(image) // 3)
    seen = [is_harmless(cut_out(image, place, length), image) for place in places(image, length)]
    assert sum(seen) >= len(seen) - 1


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("new", [bytes(1460), b"\xff" * 512, NOISE[:1460]], ids=["00", "ff", "noise"])
def test_a_block_of_a_jpeg_that_is_overwritten_is_seen(kind: str, new: bytes) -> None:
    image = JPEGS[kind]
    new = new[: len(image) // 3]
    seen = [is_harmless(overwritten(image, place, new), image) for place in places(image, len(new))]
    assert sum(seen) >= len(seen) - 1


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize(
    "end", [b"", b"\xff\xd9", bytes(5000), bytes(5000) + b"\xff\xd9"], ids=["", "d9", "00", "00 d9"]
)
def test_a_jpeg_that_ends_early_is_refused(kind: str, end: bytes) -> None:
    image = JPEGS[kind]
    for place in places(image, 2000 if len(image) > 6000 else 200):
        assert is_refused(image[:place] + end), place


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (BASELINE[:40_000] + b"\xff\xd9", "Corrupt JPEG data: premature end of data segment"),
        (BASELINE[:40_000], "ends early"),
        (BASELINE[:40], "ends early"),
        (BASELINE[:-2] + b"\xff\x5b\xff\xd9", "marker 5b"),
        (BASELINE[:-2] + b"a" * 1000 + b"\xff\xd9", "extraneous bytes before marker 0xd9"),
        (overwritten(PNG, 5000, bytes(9)), "the checksum of chunk IDAT is wrong"),
        (PNG[:5000], "within chunk IDAT"),
        (WEBPS["lossy"][:5000], "5000 bytes are there of"),
        (overwritten(WEBPS["lossy"], 9000, bytes(512)), "complete before its data end"),
    ],
)
def test_the_reason_is_said(image: bytes, words: str) -> None:
    assert words in refusal(image)


def test_nothing_of_a_picture_goes_to_the_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    for image in (BASELINE[:40_000] + b"\xff\xd9", png(zlib.compress(b"\0")), PNG, BASELINE):
        is_refused(image)
    os.write(2, b"and this is still heard")
    assert capfd.readouterr() == ("", "and this is still heard")


SECRET = b"nothing of this reaches the decoder"


@pytest.mark.parametrize(
    "image",
    [
        images.jpeg_with(BASELINE, images.jpeg_segment(0xE1, SECRET), images.jpeg_segment(0xFE, SECRET)) + SECRET,
        images.png_with(PNG, images.png_chunk(b"tEXt", b"Comment\0" + SECRET), images.png_chunk(b"eXIf", SECRET))
        + SECRET,
        images.webp_with(WEBPS["lossy"], after=images.webp_chunk(b"XMP ", SECRET)) + SECRET,
    ],
    ids=["jpeg", "png", "webp"],
)
def test_the_decoder_gets_what_it_needs_and_no_more(image: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def imdecode(data: NDArray[np.uint8], flags: int) -> None:
        seen.append(data.tobytes())

    monkeypatch.setattr(cv2, "imdecode", imdecode)
    refusal(image)
    assert seen
    assert all(SECRET not in data for data in seen)


def restarts_of(image: bytes) -> list[int]:
    start, _ = data_of(image)
    return [start + found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", image[start:])]


@pytest.mark.parametrize("number", [0, 7, 100, -1])
def test_a_restart_marker_that_is_missing_is_seen(number: int) -> None:
    assert "restart markers" in refusal(cut_out(RESTARTS, restarts_of(RESTARTS)[number], 2))


@pytest.mark.parametrize("intervals", [1, 3, 8, 16])
def test_restart_intervals_that_are_missing_are_seen(intervals: int) -> None:
    """libjpeg takes eight missing intervals for none, and says nothing of the grey rest."""
    found = restarts_of(RESTARTS)
    assert "restart markers" in refusal(cut_out(RESTARTS, found[10], found[10 + intervals] - found[10]))


def padded(image: bytes, padding: bytes) -> bytes:
    """Return a JPEG as some cameras make it: with bytes too many before the restart markers and the end."""
    for place in [len(image) - 2, *reversed(restarts_of(image))]:
        image = image[:place] + padding + image[place:]
    return image


def with_scan_parameters(image: bytes) -> bytes:
    start, _ = data_of(image)
    return overwritten(image, start - 3, b"\0\0\0")


def jfif(image: bytes, version: bytes) -> bytes:
    return overwritten(image, image.index(b"JFIF\0") + 5, version)


def adobe(image: bytes, transform: int) -> bytes:
    """Return the JPEG with Adobe's segment instead of its JFIF segment."""
    start, end = image.index(b"\xff\xe0"), image.index(b"\xff\xdb")
    image = cut_out(image, start, end - start)
    return images.jpeg_with(image, images.jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform])))


def without_tables(image: bytes, *, first: bytes) -> bytes:
    """Return a JPEG as in MJPEG: without its Huffman tables."""
    while (place := image.find(b"\xff\xc4")) >= 0:
        image = cut_out(image, place, 2 + int.from_bytes(image[place + 2 : place + 4]))
    start = image.index(b"\xff\xdb")
    return image[:2] + first + image[start:]


SOUND: dict[str, bytes] = {
    **JPEGS,
    "padding of a byte": padded(RESTARTS, b"\0"),
    "padding of four bytes": padded(RESTARTS, b"\x5a\xa5\0\xf0"),
    "padding of ten bytes": padded(RESTARTS, bytes(10)),
    "padding at the end": padded(BASELINE, bytes(7)),
    "MJPEG": without_tables(BASELINE, first=images.jpeg_segment(0xE0, b"AVI1" + bytes(10))),
    "MJPEG without a segment": without_tables(BASELINE, first=b""),
    "zeros behind": BASELINE + bytes(5000),
    "HTTP behind": BASELINE + b"\r\n--boundary\r\nContent-Type: image/jpeg\r\n\r\n",
    "a JPEG behind": BASELINE + JPEGS["progressive"],
    "half a JPEG behind": BASELINE + JPEGS["progressive"][:3000],
    "a film behind": BASELINE + b"\0\0\0\x18ftypmp42" + NOISE,
    "many scans behind": BASELINE + JPEGS["progressive"][2:-2] * 30,
    "broken ICC": images.jpeg_with(BASELINE, images.jpeg_segment(0xE2, b"ICC_PROFILE\0\3\1" + bytes(100))),
    "a thumbnail": images.jpeg_with(BASELINE, images.jpeg_segment(0xE1, b"Exif\0\0" + images.nobody())),
    "fill bytes": images.jpeg_with(BASELINE, b"\xff" * 100),
    "bytes between segments": images.jpeg_with(BASELINE, bytes(608), before=0xDB),
    "an odd JFIF revision": jfif(BASELINE, b"\3\7"),
    "Adobe's transform": adobe(BASELINE, 1),
    "an odd Adobe transform": adobe(BASELINE, 7),
    "odd parameters of a scan": with_scan_parameters(BASELINE),
    "a restart marker at the end": BASELINE[:-2] + b"\xff\xd0\xff\xd9",
    "an interval of 0": images.jpeg_with(BASELINE, images.jpeg_segment(0xDD, b"\0\0"), before=0xDA),
    "mpo": images.pillow(PHOTO, "MPO", save_all=True, append_images=[PHOTO.rotate(90)], quality=85),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_jpeg_is_read_as_it_was(name: str) -> None:
    expected = cv2.imdecode(np.frombuffer(SOUND[name], np.uint8), cv2.IMREAD_COLOR)
    assert (read(SOUND[name]) == expected).all()


@pytest.mark.parametrize("name", ["an odd JFIF revision", "an odd Adobe transform", "odd parameters of a scan"])
def test_what_libjpeg_warns_of_does_not_hide_damage(name: str) -> None:
    start, _ = data_of(SOUND[name])
    assert "premature end" in refusal(SOUND[name][: start + 20_000] + b"\xff\xd9")


def test_padding_does_not_hide_a_missing_packet() -> None:
    image = SOUND["padding of four bytes"]
    assert all(is_refused(cut_out(image, place, 1460)) for place in places(image, 1460))


def progressive(scans: int) -> bytes:
    """Return a progressive JPEG with that many scans, most of them of no blocks but the ends of bands."""
    image = images.pillow(images.opened(images.nobody()).convert("L"), "JPEG", progressive=True)
    last = image.rindex(b"\xff\xda")
    return image[:-2] + image[last:-2] * (scans - image.count(b"\xff\xda")) + b"\xff\xd9"


def scans_of(image: bytes) -> list[tuple[int, int]]:
    """Return where each scan of a JPEG starts and ends."""
    return [found.span() for found in re.finditer(rb"\xff\xda(?:[^\xff]|\xff[\0\xd0-\xd7])*", image)]


def in_scans(image: bytes) -> bytes:
    """Return a sequential JPEG of three scans, one for each component: three grey pictures in one."""
    greys = [images.pillow(channel, "JPEG", quality=85) for channel in images.opened(image).convert("YCbCr").split()]
    header = images.pillow(images.opened(image), "JPEG", quality=85, subsampling=0)
    parts = [header[: header.index(b"\xff\xda")]]
    for number, grey in enumerate(greys, start=1):
        start, end = data_of(grey)
        parts.append(images.jpeg_segment(0xDA, bytes((1, number, 0, 0, 63, 0))) + grey[start:end])
    return b"".join(parts) + b"\xff\xd9"


@pytest.mark.parametrize(
    "image",
    [JPEGS["progressive"], jpeg_of("L", progressive=True), in_scans(BASELINE)],
    ids=["colour", "grey", "sequential"],
)
def test_a_scan_that_is_missing_is_seen(image: bytes) -> None:
    read(image)
    scans = scans_of(image)
    assert len(scans) >= 3
    for start, end in scans:
        assert is_refused(cut_out(image, start, end - start))
    for start, _ in scans[1:]:
        assert "some of its scans are missing" in refusal(image[:start] + b"\xff\xd9")


def test_a_jpeg_with_too_many_scans_is_refused() -> None:
    assert f"more than {jpeg.MAX_SCANS} scans" in refusal(progressive(jpeg.MAX_SCANS + 1))
    assert "scans" not in refusal(progressive(jpeg.MAX_SCANS))
    assert "scans" in refusal(progressive(37_000))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (BASELINE.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "12 bits"),
        (BASELINE.replace(b"\xff\xc0", b"\xff\xc3"), "lossless"),
        (BASELINE.replace(b"\xff\xc0", b"\xff\xc9"), "arithmetic"),
        (BASELINE.replace(b"\xff\xc0", b"\xff\xf7"), "JPEG-LS"),
        (b"\xff\xd8\xff\xd9", "no picture"),
        (b"\xff\xd8" + b"\xff\xfe\0\2" * 2_000_000, "segments"),
        (b"\xff\xd8" + b"\xff\xd0" * 2_000_000, "segments"),
        (b"\xff\xd8" + b"\xff" * 20_000_000, "no picture"),
        (b"\xff\xd8" + bytes(20_000_000), "not a JPEG"),
        (b"\xff\xd8\xff\xe0" + bytes(20_000_000), "segment e0"),
    ],
)
def test_a_jpeg_that_is_none_to_us_never_reaches_the_decoder(
    image: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", None)
    assert words in refusal(image)


def png(data: bytes, *, header: bytes = struct.pack(">IIBBBBB", 40, 40, 8, 2, 0, 0, 0), more: bytes = b"") -> bytes:
    chunks = images.png_chunk(b"IHDR", header), more, images.png_chunk(b"IDAT", data), images.png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


ROWS = (b"\0" + bytes(120)) * 40


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (png(zlib.compress(ROWS[:900])), "Not enough image data"),
        (png(zlib.compress(ROWS)[:-4]), "Not enough image data"),
        (png(zlib.compress(ROWS)[:-4] + b"abcd"), "incorrect data check"),
        (png(zlib.compress(b"\x09" + ROWS[1:])), "bad adaptive filter value"),
        (png(b""), "Not enough image data"),
        (png(zlib.compress(ROWS), more=images.png_chunk(b"ABCD", b"")), "chunk ABCD"),
    ],
)
def test_a_png_whose_data_are_wrong_is_refused_with_the_reason(image: bytes, words: str) -> None:
    assert words in refusal(image)


@pytest.mark.parametrize("data", [zlib.compress(ROWS * 2), zlib.compress(ROWS) + b"more"])
def test_a_png_with_more_data_than_it_needs_is_read(data: bytes) -> None:
    assert (read(png(data)) == 0).all()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (png(b"")[:33] + b"\xff\xff\xff\xf0IDAT", "ends early"),
        (png(b"")[:33] + b"\xff\xff\xff\xf0IDAT" + bytes(100), "within chunk IDAT"),
        (png(b"")[:33] + b"\x7f\xff\xff\xfftEXt" + bytes(100), "within chunk tEXt"),
        (PNG[:-12], "no IEND"),
        (PNG[:-1], "no IEND"),
        (PNG[:33] + PNG[-12:], "no IDAT"),
        (PNG[:33] + b"\0\0\0\0abCD\0\0\0\0" * 200_000, "chunks"),
        (overwritten(PNG, 20, b"\7"), "the checksum of chunk IHDR is wrong"),
        (PNG[:8] + images.png_chunk(b"IDAT", b"") + PNG[8:], "does not begin with"),
        (png(b"", header=b"short"), "does not begin with"),
    ],
)
def test_a_png_whose_chunks_are_wrong_never_reaches_the_decoder(
    image: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", None)
    assert words in refusal(image)


@pytest.mark.parametrize("options", [{}, {"compress_level": 1}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_a_sound_png_is_read_as_it_was(mode: str, options: dict[str, Any]) -> None:
    image = images.pillow(PHOTO.convert(mode), "PNG", **options)
    for more in (
        b"",
        images.png_chunk(b"iCCP", b"bad\0\0" + zlib.compress(bytes(400))),
        images.png_chunk(b"gAMA", b"ab"),
    ):
        shown = images.png_with(image, more)
        expected = cv2.imdecode(np.frombuffer(shown, np.uint8), cv2.IMREAD_COLOR)
        assert (read(shown + bytes(100)) == expected).all()


@pytest.mark.parametrize("kind", WEBPS)
@pytest.mark.parametrize("new", [bytes(512), b"\xff" * 64, NOISE[:1460]], ids=["zeros", "ff", "noise"])
def test_damage_of_a_webp_is_seen(kind: str, new: bytes) -> None:
    """Lossless ones have codes that find their place again, as in a JPEG: some of their damage stays unseen."""
    image = WEBPS[kind]
    start = image.index(b"VP8 " if kind != "lossless" else b"VP8L") + 100
    spread = [int(place) for place in np.linspace(start, len(image) - len(new) - 100, 12)]
    seen = [is_refused(overwritten(image, place, new)) for place in spread]
    assert sum(seen) >= (5 if kind == "lossless" else 12)


@pytest.mark.parametrize("kind", WEBPS)
@pytest.mark.parametrize("missing", [3, 20, 1000])
@pytest.mark.parametrize("repaired", [False, True], ids=["as it is", "with a size that fits"])
def test_a_webp_that_ends_early_is_refused(kind: str, missing: int, repaired: bool) -> None:
    image = WEBPS[kind][:-missing]
    if repaired:
        image = overwritten(image, 4, struct.pack("<I", len(image) - 8))
    assert "ends early" in refusal(image)


def test_an_animated_webp_never_reaches_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", None)
    image = images.pillow(PHOTO, "WEBP", save_all=True, append_images=[PHOTO.rotate(90)])
    assert "animated" in refusal(image)
    assert "two sizes" in refusal(overwritten(images.webp_with(WEBPS["lossy"]), 24, b"\0\0\0"))
    assert "no picture" in refusal(b"RIFF\x04\0\0\0WEBP")
    assert "chunks" in refusal(b"RIFF" + struct.pack("<I", 4 + 800_000) + b"WEBP" + b"abcd\0\0\0\0" * 100_000)


def black_bordered(width: int, height: int) -> bytes:
    photo = images.opened(images.photograph("camera"))
    whole = Image.new("RGB", (width, height))
    whole.paste(photo.resize((width // 3, height // 3)), (width // 3, height // 4))
    return images.pillow(whole, "PNG")


@pytest.mark.parametrize(
    "shown",
    [
        images.pillow(PHOTO, "PNG"),
        black_bordered(640, 480),
        images.pillow(images.opened(images.nobody(300, 200)), "PNG"),
    ],
    ids=["photo", "black border", "ramp"],
)
@pytest.mark.parametrize("quality", [0, 50, 80, 100])
@pytest.mark.parametrize("method", [0, 4])
@pytest.mark.parametrize("lossless", [False, True], ids=["lossy", "lossless"])
def test_a_sound_webp_is_read_as_it_was(shown: bytes, quality: int, method: int, lossless: bool) -> None:
    for mode in ("RGB", "RGBA"):
        image = images.pillow(
            images.opened(shown).convert(mode), "WEBP", quality=quality, method=method, lossless=lossless
        )
        expected = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        assert (read(image + b"behind") == expected).all()


@pytest.mark.parametrize("height", [1, 2, 15, 16, 17, 100, 127, 128, 129])
@pytest.mark.parametrize("lossless", [False, True], ids=["lossy", "lossless"])
def test_a_sound_webp_of_any_size_is_read(height: int, lossless: bool) -> None:
    for width in (1, 3, 16, 130):
        assert read(images.pillow(PHOTO.resize((width, height)), "WEBP", lossless=lossless)).shape == (height, width, 3)


BMP = images.pillow(PHOTO, "BMP")


@pytest.mark.parametrize("kept", [2, 17, 30, 53, 54, 100, len(BMP) - 1])
def test_a_bmp_that_ends_early_never_reaches_the_decoder(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", None)
    assert "ends early" in refusal(BMP[:kept])


def test_a_bmp_with_an_odd_header_never_reaches_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", None)
    assert "4000000000 bytes" in refusal(overwritten(BMP, 14, struct.pack("<I", 4_000_000_000)))
    assert "a width of -512" in refusal(overwritten(BMP, 18, struct.pack("<i", -512)))
    assert "ends early" in refusal(overwritten(BMP, 22, struct.pack("<i", -(2**31))))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_a_sound_bmp_is_read_as_it_was(mode: str) -> None:
    image = images.pillow(PHOTO.convert(mode), "BMP")
    assert (read(image) == cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)).all()
    upside_down = overwritten(image, 22, struct.pack("<i", -512))
    assert (read(upside_down) == read(image)[::-1]).all()


def with_masks(bits: int, masks: tuple[int, int, int]) -> bytes:
    """Return a BMP of 8 x 8 pixels whose red is full and whose green and blue are none."""
    pixels = masks[0].to_bytes(bits // 8, "little") * 64
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, bits, 3, len(pixels), 0, 0, 0, 0) + struct.pack("<III", *masks)
    return b"BM" + struct.pack("<IHHI", 66 + len(pixels), 0, 0, 66) + header + pixels


@pytest.mark.parametrize(
    ("bits", "masks"), [(16, (0xF800, 0x7E0, 0x1F)), (16, (0x7C00, 0x3E0, 0x1F)), (32, (0xFF0000, 0xFF00, 0xFF))]
)
def test_a_bmp_with_usual_masks_has_the_right_colours(bits: int, masks: tuple[int, int, int]) -> None:
    blue, green, red = read(with_masks(bits, masks))[3, 3]
    assert red >= 248
    assert green == blue == 0


@pytest.mark.parametrize("masks", [(0xFF000000, 0xFF00, 0xFF), (0xFF000000, 0xFF0, 0xFF0000), (0xFF, 0xFF00, 0xFF0000)])
def test_a_bmp_with_other_masks_is_refused(masks: tuple[int, int, int]) -> None:
    assert "masks" in refusal(with_masks(32, masks))


def test_zeros_that_fill_a_cameras_buffer_before_the_end_are_no_damage() -> None:
    jpeg = images.photograph("camera")
    for count in (1, 16, 17, 400, 5000):
        padded = jpeg[:-2] + bytes(count) + jpeg[-2:]
        assert np.array_equal(picture.read(padded, max_pixels=10**7), picture.read(jpeg, max_pixels=10**7))
    with pytest.raises(picture.UndecodableError, match="extraneous bytes"):
        picture.read(jpeg[:-2] + b"\x5a" * 400 + jpeg[-2:], max_pixels=10**7)


def test_a_tiny_webp_is_read() -> None:
    white = images.pillow(Image.new("RGB", (64, 48), "white"), "WEBP", lossless=True, quality=100, method=6)
    assert len(white) < 32
    assert picture.read(white, max_pixels=10**7).shape == (48, 64, 3)
