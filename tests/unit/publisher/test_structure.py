import struct
from pathlib import Path

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from posture_publisher.structure import Ending, look

from tests.support.images import SAMPLES, nobody, opened, pillow

PERSON = opened(nobody(48, 36))
EXIF = Image.Exif()
EXIF[0x0112] = 6
WITH_EXIF = {"exif": EXIF.tobytes()}
PICTURES = {
    "jpeg": pillow(PERSON, "JPEG"),
    "jpeg progressive": pillow(PERSON, "JPEG", progressive=True),
    "jpeg with restarts": pillow(PERSON, "JPEG", restart_marker_blocks=1),
    "jpeg cmyk": pillow(PERSON.convert("CMYK"), "JPEG"),
    "jpeg with exif and thumbnail": pillow(PERSON, "JPEG", exif=EXIF.tobytes() + nobody(16, 16)),
    "png": pillow(PERSON, "PNG"),
    "png animated": pillow(PERSON, "PNG", save_all=True, append_images=[PERSON.rotate(90)]),
    "png with exif": pillow(PERSON, "PNG", **WITH_EXIF),
    "webp": pillow(PERSON, "WEBP"),
    "webp lossless": pillow(PERSON, "WEBP", lossless=True),
    "webp transparent": pillow(PERSON.convert("RGBA").rotate(30), "WEBP"),
    "webp animated": pillow(PERSON, "WEBP", save_all=True, append_images=[PERSON.rotate(90)]),
    "webp with exif": pillow(PERSON, "WEBP", **WITH_EXIF),
    **{f"bmp {mode}": pillow(PERSON.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")},
    "bmp by OpenCV": cv2.imencode(".bmp", cv2.imread(str(SAMPLES / "camera.jpg"))[:40, :30])[1].tobytes(),
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_a_whole_picture_is_whole_and_no_beginning_of_it_is(picture: bytes) -> None:
    assert look(picture).ending is Ending.WHOLE
    cuts = {length: look(picture[:length]).ending for length in range(16, len(picture), max(1, len(picture) // 2000))}
    assert {length for length, ending in cuts.items() if ending is not Ending.OPEN} == set()


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_what_stands_behind_a_picture_is_noticed(picture: bytes) -> None:
    assert look(picture + b"\0film").ending is Ending.MORE


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.jpg")), ids=lambda path: path.name)
def test_photographs_are_whole(path: Path) -> None:
    assert look(path.read_bytes()).ending is Ending.WHOLE


def test_pictures_one_behind_the_other_end_with_the_last() -> None:
    two = pillow(PERSON, "MPO", save_all=True, append_images=[PERSON.rotate(90)])
    assert look(two).ending is Ending.WHOLE
    assert look(two[:-100]).ending is Ending.OPEN


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def long_box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4sQ", 1, kind, len(content) + 16) + content


def test_a_phones_film_behind_the_picture_ends_with_its_last_box() -> None:
    film = box(b"ftyp", b"mp42") + long_box(b"mdat", b"film" * 500) + box(b"moov", b"how to play it")
    for picture in (PICTURES["jpeg"], PICTURES["jpeg"] * 2):
        assert look(picture + film).ending is Ending.WHOLE
        assert {look(picture + film[:length]).ending for length in range(20, len(film) - 22)} == {Ending.OPEN}
        assert look(picture + film[:1000] + bytes(len(film) - 1000)).ending is Ending.OPEN
        assert look(picture + film + bytes(8)).ending is Ending.MORE


def test_a_file_of_samsungs_ends_with_its_mark() -> None:
    assert look(PICTURES["jpeg"] + b"SEFH" + b"theirs" * 10 + b"SEFT").ending is Ending.WHOLE
    assert look(PICTURES["jpeg"] + b"SEFH" + b"theirs" * 5).ending is Ending.MORE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_room_that_is_not_written_yet_is_not_a_picture(kind: str) -> None:
    noise = Image.effect_noise((120, 120), 100).convert("RGB")
    picture = pillow(noise, kind)
    assert look(picture).ending is Ending.WHOLE
    for written in (0, 8, 100, len(picture) // 2, len(picture) - 4200):
        assert look(picture[:written] + bytes(len(picture) - written)).ending is Ending.OPEN, written


@pytest.mark.parametrize("data", [b"GIF89a" + b"x" * 100, b"<!DOCTYPE html>", b"\0\0\0\x18ftypheic" + b"x" * 100])
def test_other_formats_are_not_waited_for_as_long_as_for_an_end(data: bytes) -> None:
    assert look(data).ending is Ending.MORE


@pytest.mark.parametrize(
    "data", [b"", b"\0", bytes(5000), b"\xff\xd8\xff", b"BM", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"]
)
def test_a_beginning_that_says_nothing_is_not_an_end(data: bytes) -> None:
    assert look(data).ending is not Ending.WHOLE


def test_exif_data_are_found_wherever_they_stand() -> None:
    bare = EXIF.tobytes().removeprefix(b"Exif\0\0")
    other = b"\xff\xe1" + struct.pack(">H", 40) + b"http://ns.adobe.com/xap/1.0/\0" + bytes(9)
    jpeg = pillow(PERSON, "JPEG", **WITH_EXIF)
    for picture in (jpeg, jpeg[:2] + other + jpeg[2:], PICTURES["png with exif"], PICTURES["webp with exif"]):
        assert look(picture).exif.startswith(bare)
    assert look(PICTURES["jpeg"]).exif == b""


@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda picture, damage, at: picture[:at] + damage + picture[at + len(damage) :],
            st.sampled_from(list(PICTURES.values())),
            st.binary(min_size=1, max_size=30),
            st.integers(0, 1000),
        ),
    )
)
def test_no_content_raises(data: bytes) -> None:
    look(data)


def test_a_file_made_of_markers_takes_no_time_to_speak_of() -> None:
    for filling in (b"\xff", b"\xff\xd0", b"\xff\x00"):
        assert look(b"\xff\xd8\xff" + filling * 3_000_000).ending is Ending.OPEN
