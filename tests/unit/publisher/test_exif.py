"""The times that photographs say, as Pillow writes them."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from posture_publisher.exif import taken_at
from posture_publisher.structure import look

from tests.support.images import nobody, opened, pillow

TAKEN, DIGITAL, CHANGED = 0x9003, 0x9004, 0x0132
FRACTION, ZONE = 0x9291, 0x9011


@pytest.fixture(autouse=True)
def _a_machine_in_toronto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/Toronto")
        time.tzset()
        yield
    time.tzset()


def exif(tags: dict[int, str], *, order: str = "<") -> bytes:
    data = Image.Exif()
    data.endian = order
    data.get_ifd(0x8769).update({tag: text for tag, text in tags.items() if tag != CHANGED})
    data.update({tag: text for tag, text in tags.items() if tag == CHANGED})
    data[0x010F] = "the maker of the camera, a long name"
    return data.tobytes()


def said(data: bytes, kind: str = "JPEG") -> str | None:
    moment = taken_at(look(pillow(opened(nobody(16, 16)), kind, exif=data)).exif)
    return moment.isoformat() if moment else None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_time_is_read_from_every_format_in_both_byte_orders(kind: str, order: str) -> None:
    tags = {TAKEN: "2025:03:01 10:20:30", FRACTION: "042", ZONE: "+05:30"}
    assert said(exif(tags, order=order), kind) == "2025-03-01T04:50:30.042000+00:00"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({TAKEN: "2025:03:01 10:20:30"}, "2025-03-01T15:20:30+00:00"),  # this machine's zone: winter
        ({TAKEN: "2025:07:01 10:20:30"}, "2025-07-01T14:20:30+00:00"),  # and summer
        ({TAKEN: "2025:03:01 10:20:30", ZONE: "Z"}, "2025-03-01T10:20:30+00:00"),
        ({TAKEN: "2025:03:01 10:20:30", ZONE: "-0800"}, "2025-03-01T18:20:30+00:00"),
        ({TAKEN: "2025:03:01 10:20:30", ZONE: "   :  "}, "2025-03-01T15:20:30+00:00"),
        ({TAKEN: "2025:03:01 10:20:30", FRACTION: "1234567"}, "2025-03-01T15:20:30.123456+00:00"),
        ({TAKEN: "2025:03:01 10:20:30", FRACTION: "   "}, "2025-03-01T15:20:30+00:00"),
        ({TAKEN: "2025-03-01T10:20:30", ZONE: "Z"}, "2025-03-01T10:20:30+00:00"),
        ({TAKEN: "0000:00:00 00:00:00", DIGITAL: "2025:03:01 10:20:30"}, "2025-03-01T15:20:30+00:00"),
        ({CHANGED: "2025:03:01 10:20:30"}, "2025-03-01T15:20:30+00:00"),
        ({TAKEN: "2024:03:01 10:20:30", CHANGED: "2025:03:01 10:20:30"}, "2024-03-01T15:20:30+00:00"),
        ({TAKEN: "1955:03:01 10:20:30", ZONE: "Z"}, "1955-03-01T10:20:30+00:00"),
        ({TAKEN: "    :  :     :  :  "}, None),
        ({TAKEN: "2025:02:31 10:20:30"}, None),
        ({TAKEN: "2025:03:01 24:20:30"}, None),
        ({TAKEN: "0001:01:01 00:00:00", ZONE: "+14:00"}, None),
        ({TAKEN: "2025:03:01 10:20:30", ZONE: "+99:99"}, None),
        ({TAKEN: "yesterday"}, None),
        ({}, None),
    ],
)
def test_times_as_cameras_write_them(tags: dict[int, str], expected: str | None) -> None:
    assert said(exif(tags)) == expected


@given(data=st.binary(max_size=200), head=st.sampled_from([b"", b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0"]))
def test_no_bytes_raise(data: bytes, head: bytes) -> None:
    taken_at(head + data)


@given(cut=st.integers(0, 200), at=st.integers(0, 199), byte=st.integers(0, 255))
def test_damaged_data_raise_nothing(cut: int, at: int, byte: int) -> None:
    data = bytearray(exif({TAKEN: "2025:03:01 10:20:30", FRACTION: "042", ZONE: "+05:30"}).removeprefix(b"Exif\0\0"))
    data[at % len(data)] = byte
    taken_at(bytes(data[: max(4, len(data) - cut)]))


def test_directories_that_name_each_other_end() -> None:
    directory = b"\x01\0" + b"\x69\x87\x04\0\x01\0\0\0\x08\0\0\0"  # an EXIF directory that is the first one
    assert taken_at(b"II*\0\x08\0\0\0" + directory) is None
