"""What a message's payload is taken for, and its key."""

import base64
import hashlib
import uuid
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posture_analyzer.payload import PayloadError, decode, image_key

from tests.support.images import nobody

STARTS = {
    "jpeg": b"\xff\xd8\xff\xe0",
    "png": b"\x89PNG\r\n\x1a\n",
    "webp": b"RIFF\x24\0\0\0WEBP",
    "bmp": b"BM\x36\x84\x03\0",
    "gif": b"GIF89a",
    "tiff, little-endian": b"II*\0",
    "tiff, big-endian": b"MM\0*",
}
LIMIT = 2**20

images = st.builds(lambda start, rest: start + rest, st.sampled_from(list(STARTS.values())), st.binary())


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
def test_raw_bytes_come_back(start: bytes) -> None:
    assert decode(start + b"AAAA", max_bytes=LIMIT) == start + b"AAAA"


@given(images)
def test_raw_images_come_back(image: bytes) -> None:
    assert decode(image, max_bytes=LIMIT) == image


@given(images)
def test_base64_of_any_image_comes_back(image: bytes) -> None:
    assert decode(base64.b64encode(image), max_bytes=LIMIT) == image


@given(images)
def test_base64_for_urls_and_without_padding_comes_back(image: bytes) -> None:
    for text in (base64.urlsafe_b64encode(image), base64.b64encode(image)):
        assert decode(text, max_bytes=LIMIT) == image
        assert decode(text.rstrip(b"="), max_bytes=LIMIT) == image


@given(image=images, newline=st.sampled_from([b"\n", b"\r\n", b" \t"]), before=st.sampled_from([b"", b"\n", b"  "]))
def test_base64_in_lines_comes_back(image: bytes, newline: bytes, before: bytes) -> None:
    assert decode(before + base64.encodebytes(image).replace(b"\n", newline), max_bytes=LIMIT) == image


@pytest.mark.parametrize(
    "prefix",
    [
        b"data:image/jpeg;base64,",
        b"DATA:image/PNG;BASE64,",
        b" data:image/svg+xml;base64,",
        b"data:image/x-ms-bmp;base64,\n",
    ],
)
@given(image=images)
def test_data_uris_come_back(prefix: bytes, image: bytes) -> None:
    assert decode(prefix + base64.b64encode(image), max_bytes=LIMIT) == image


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "empty"),
        (b" \r\n\t ", "empty"),
        (b"data:image/jpeg;base64,", "empty"),
        (b"hello, world", "neither"),
        (b"=AAA", "neither"),
        (b"A", "neither"),
        (b"\0" * 100, "neither"),
        (b"data:image/jpeg;base65,AAAA", "neither"),
        (b"data:image/jpeg,AAAA", "neither"),
        ("ÄÖÜß".encode(), "neither"),
        (base64.b64encode(nobody()).rstrip(b"=") + b"A=A", "neither"),
        (base64.b64encode(nobody() + b"x" * (-len(nobody()) % 3)) + b"A", "neither"),
    ],
)
def test_what_is_no_image_is_refused(payload: bytes, words: str) -> None:
    with pytest.raises(PayloadError, match=words):
        decode(payload, max_bytes=LIMIT)


@given(st.binary())
def test_any_bytes_are_decoded_or_refused(payload: bytes) -> None:
    with suppress(PayloadError):
        assert 0 < len(decode(payload, max_bytes=50)) <= 50


@pytest.mark.parametrize("encode", [bytes, base64.b64encode], ids=["raw", "base64"])
def test_the_limit_is_on_the_decoded_bytes(encode: type[bytes]) -> None:
    image = STARTS["jpeg"] + bytes(96)
    assert decode(encode(image), max_bytes=100) == image
    with pytest.raises(PayloadError, match="100 bytes, more than the 99 of POSTURE_MAX_IMAGE_BYTES"):
        decode(encode(image), max_bytes=99)


@given(st.uuids())
def test_a_uuid_is_the_key_however_it_is_written(image_id: uuid.UUID) -> None:
    for text in (str(image_id), str(image_id).upper(), image_id.hex, f"{{{image_id}}}", image_id.urn):
        assert image_key(text, "images/pi1", b"anything") == str(image_id)


@pytest.mark.parametrize("image_id", [None, "", "17", "not a uuid", "\0", "6f1c"])
def test_without_a_uuid_topic_and_bytes_are_the_key(image_id: str | None) -> None:
    assert image_key(image_id, "images/pi1", b"image") == hashlib.sha256(b"images/pi1image").hexdigest()


def test_the_content_key_tells_images_and_topics_apart() -> None:
    keys = {image_key(None, topic, image) for topic in ("images/pi1", "images/pi2") for image in (b"1", b"2")}
    assert len(keys) == 4
