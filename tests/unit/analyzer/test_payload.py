"""What a message's payload is taken for, and its key."""

import base64
import hashlib
import json
import time
import tracemalloc
import uuid
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote, quote_plus

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
        b"data:image/jpeg;charset=utf-8;base64,",
        b"data:image/jpeg;name=a b.jpg;base64,",
        b"data:;base64,",
        b"data:image/jpeg;base64 , ",
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


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def uri(image: bytes) -> str:
    return f"data:image/jpeg;base64,{text(image)}"


def part(head: str, body: bytes) -> bytes:
    return f"--3f2a\r\nContent-Disposition: form-data{head}\r\n\r\n".encode() + body + b"\r\n--3f2a"


WRAPPED: dict[str, Callable[[bytes], str | bytes]] = {
    "bytes of Python": lambda image: repr(base64.b64encode(image)),
    "encodebytes of Python": lambda image: repr(base64.encodebytes(image)),
    "text of Python": lambda image: repr(text(image)),
    "a JSON text": lambda image: json.dumps(text(image)),
    "JSON": lambda image: json.dumps({"camera": "pi1", "size": [640, 480], "image": text(image), "unit": "px"}),
    "JSON with a data URI": lambda image: json.dumps({"t": 1, "frame": {"src": uri(image)}}, indent=1),
    "JSON list": lambda image: json.dumps([{"ts": 1, "values": {"photo": text(image)}}]),
    "JSON of PHP": lambda image: json.dumps({"data": uri(image)}).replace("/", "\\/"),
    "JSON of .NET": lambda image: json.dumps({"data": text(image)}).replace("+", "\\u002B"),
    "JSON of Gson": lambda image: json.dumps({"data": text(image)}).replace("=", "\\u003d"),
    "JSON in lines": lambda image: json.dumps({"data": base64.encodebytes(image).decode()}),
    "JSON cut short": lambda image: json.dumps({"data": text(image)})[:-2],
    "JSON in JSON": lambda image: json.dumps({"payload": json.dumps({"image": text(image)})}),
    "JSON in JSON in JSON": lambda image: json.dumps(json.dumps(json.dumps({"image": uri(image)}).replace("/", "\\/"))),
    "a Buffer of Node.js": lambda image: json.dumps({"type": "Buffer", "data": list(image)}, separators=(",", ":")),
    "a Buffer in lines": lambda image: json.dumps({"payload": {"type": "Buffer", "data": list(image)}}, indent=1),
    "a Buffer cut short": lambda image: json.dumps({"type": "Buffer", "data": list(image)})[:-2],
    "bytes of Java": lambda image: json.dumps([byte - 256 if byte > 127 else byte for byte in image]),
    "an image's bytes of Python": lambda image: repr(image),
    "a dictionary of Python": lambda image: repr({"image": image}),
    "base64 of base64": lambda image: base64.b64encode(base64.encodebytes(image)),
    "base64 of base64 of base64": lambda image: base64.b64encode(base64.b64encode(base64.b64encode(image))),
    "base64 of a data URI": lambda image: base64.b64encode(uri(image).encode()),
    "a data URI of base64": lambda image: uri(base64.b64encode(image)),
    "base64 of JSON": lambda image: base64.b64encode(json.dumps({"image": text(image)}).encode()),
    "hex": lambda image: image.hex(),
    "hex of xxd": lambda image: image.hex(" ", 30).upper().replace(" ", "\n") + "\n",
    "hex in pairs": lambda image: image.hex(" "),
    "hex with colons": lambda image: image.hex(":"),
    "hex with 0x": lambda image: "0x" + image.hex(),
    "bytea": lambda image: "\\x" + image.hex(),
    "percent": lambda image: quote(text(image), safe=""),
    "small percent": lambda image: quote(text(image), safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    "a data URI in percent": lambda image: quote(uri(image), safe=""),
    "a form": lambda image: f"pi=1&image={quote_plus(text(image))}&unit=px",
    "a form that is not encoded": lambda image: f"image={text(image)}",
    "a form with a data URI": lambda image: f"image={quote_plus(uri(image))}",
    "UTF-8 with a mark": lambda image: b"\xef\xbb\xbf" + text(image).encode(),
    "UTF-16": lambda image: text(image).encode("utf-16"),
    "UTF-16, big-endian": lambda image: b"\xfe\xff" + text(image).encode("utf-16-be"),
    "a string of C": lambda image: text(image).encode() + b"\0",
    "a raw image after a line's end": lambda image: b"\r\n" + image,
    "HTTP": lambda image: b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + image,
    "a POST": lambda image: b"POST /upload HTTP/1.1\r\nHost: x\r\n\r\n" + text(image).encode(),
    "an MJPEG part": lambda image: b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 1\r\n\r\n" + image,
    "bare headers": lambda image: b"Content-Type: image/jpeg\n\n" + image,
    "a multipart form": lambda image: part("", b"pi1") + b"\r\n" + part('; name="i"', image) + b"--\r\n",
    "a multipart form in base64": lambda image: part("", b"1") + b"\r\n" + part("", text(image).encode()) + b"--\r\n",
}


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("image", [nobody(), nobody(8, 8) + b"\0\xff\xfb\xef\xbe", STARTS["png"] + bytes(range(256))])
def test_what_others_wrap_an_image_in_comes_off(wrapping: str, image: bytes) -> None:
    wrapped = WRAPPED[wrapping](image)
    assert decode(wrapped if isinstance(wrapped, bytes) else wrapped.encode(), max_bytes=LIMIT) == image


@pytest.mark.parametrize(
    "wrapping",
    [
        "JSON",
        "bytes of Python",
        "a multipart form",
        "hex",
        "HTTP",
        "a Buffer of Node.js",
        "an image's bytes of Python",
        "base64 of base64",
    ],
)
def test_a_bitmap_and_a_webp_come_off_too(wrapping: str) -> None:
    for image in (b"BM\x36\x84\x03\0\0\0\0\0\x36" + bytes(50), b"RIFF\x24\0\0\0WEBPVP8 " + bytes(50)):
        wrapped = WRAPPED[wrapping](image)
        assert decode(wrapped if isinstance(wrapped, bytes) else wrapped.encode(), max_bytes=LIMIT) == image


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC"),
        (b"\0\0\0\x18ftypavif" + bytes(50), "AVIF"),
        (b"\n<!DOCTYPE html><html>404", "HTML"),
        (b"%PDF-1.4 \xff", "PDF"),
        (b"PK\x03\x04\x14", "ZIP"),
        (b'{"type": "Buffer", "data": [255, 217, 255]}', "JSON"),
        (b'{"type": "Buffer", "data": [255, 216, 256]}', "JSON"),
        (b'{"type": "Buffer", "data": [255, 216, 2.5]}', "JSON"),
        (b'{"samples": [255, 216, [255]]}', "JSON"),
        (b'[1, "text", {"image": "not base64"}]', "JSON"),
    ],
)
def test_what_is_not_read_is_named_by_how_it_begins(payload: bytes, name: str) -> None:
    with pytest.raises(PayloadError, match=f"^the payload begins like {name}, "):
        decode(payload, max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(50), "begins like HEIC, which is not read: send a JPEG, PNG, WebP or BMP image"),
        (b"\7hello, world", r"is neither an encoded image nor base64 text: it begins with b'\\x07hello, world'"),
        (b'{"image": null}', "begins like JSON, and nothing in its first 64 KiB"),
    ],
)
def test_what_is_in_base64_is_named_too(held: bytes, words: str) -> None:
    with pytest.raises(PayloadError, match=f"^what the payload holds {words}"):
        decode(base64.b64encode(held), max_bytes=LIMIT)


def test_wrappings_come_off_so_often_and_no_more() -> None:
    wrapped = nobody()
    for _ in range(4):
        wrapped = base64.b64encode(wrapped)
    assert decode(wrapped, max_bytes=LIMIT) == nobody()
    with pytest.raises(PayloadError, match=r"^what the payload holds is neither"):
        decode(base64.b64encode(wrapped), max_bytes=LIMIT)


def test_what_nobody_knows_is_shown() -> None:
    with pytest.raises(PayloadError, match=r"it begins with b'\\x07hello, world'$"):
        decode(b"\x07hello, world", max_bytes=LIMIT)
    with pytest.raises(PayloadError) as refused:
        decode(b"\n\x1b[2J" + 10_000 * b"\xff", max_bytes=LIMIT)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 200


MIB = 2**20
HOSTILE = {
    "quotes": b"[" + 4 * MIB * b'"',
    "starts in quotes": 800_000 * b'["data:',
    "escapes": b'["/9j/' + MIB * b"\\u002f",
    "backslashes": b'["/9j/' + 5 * MIB * b"\\",
    "percent": 2 * MIB * b"%2B",
    "bare percent": 5 * MIB * b"%",
    "brackets": 5 * MIB * b"[",
    "white space": 5 * MIB * b" \n",
    "other white space": 5 * MIB * b"\x0c",
    "headers": b"--x\r\n" + 2 * MIB * b"\r\n",
    "headers and blanks": b"A:" + 2 * MIB * b"\n\n ",
    "fields": 2 * MIB * b"a=",
    "hex": b"ffd8ff:" + 2 * MIB * b"ff:",
    "UTF-16": b"\xff\xfe" + 3 * MIB * b"\0\xd8",
    "nothing": 5 * MIB * b"\0",
    "marks": 2 * MIB * b"\xef\xbb\xbf",
    "numbers": b"[255,216,255" + 2 * MIB * b",0",
    "numbers and blanks": b"[255,216," + 4 * MIB * b" " + b"255",
    "digits": b"[255,216," + 5 * MIB * b"1",
    "commas": b"[255,216" + 5 * MIB * b",",
    "lists": 400_000 * b"[255,216,255]",
    "a repr": b"b'BM" + MIB * b"\\x00" + b"'",
    "a repr of backslashes": b"b'BM" + 5 * MIB * b"\\",
    "texts": 8 * (b'["/9j/' + MIB // 2 * b"A" + b'"]'),
    "base64 of base64": base64.b64encode(base64.b64encode(base64.b64encode(base64.b64encode(bytes(MIB))))),
    "a Buffer in base64": base64.b64encode(b"[255,216,255" + MIB * b",0" + b"]"),
    "base64 in JSON": b'{"image": "' + base64.b64encode(STARTS["jpeg"] + bytes(4 * MIB)) + b'"}',
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_payload_takes_time_and_memory_by_its_size(payload: bytes) -> None:
    began = time.process_time()
    with suppress(PayloadError):
        decode(payload, max_bytes=30 * MIB)
    assert time.process_time() - began < 0.2, "so that 28 MB take less than a second"
    tracemalloc.start()
    with suppress(PayloadError):
        decode(payload, max_bytes=30 * MIB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(payload)


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


def test_a_thumbnail_beside_the_image_does_not_count() -> None:
    image, thumbnail = nobody(), nobody(16, 12)
    fields = {"thumb": base64.b64encode(thumbnail).decode(), "image": base64.b64encode(image).decode(), "w": 160}
    for keys in (("thumb", "image", "w"), ("image", "thumb", "w")):
        assert decode(json.dumps({key: fields[key] for key in keys}).encode(), max_bytes=LIMIT) == image


@pytest.mark.parametrize(
    "prefix", [b"base64,", b"image/jpeg;base64,", b"data:image/jpeg;" + b"a=b;" * 100 + b"base64,"]
)
def test_a_data_uri_that_lost_its_start_or_has_much_of_it_is_read(prefix: bytes) -> None:
    assert decode(prefix + base64.b64encode(nobody()), max_bytes=LIMIT) == nobody()


def test_a_thumbnail_of_any_size_does_not_count_either() -> None:
    image, thumbnail = nobody() + bytes(200_000), nobody() + bytes(100_000)
    assert decode(json.dumps({"thumb": text(thumbnail), "image": text(image)}).encode(), max_bytes=LIMIT) == image


def test_url_safe_text_in_json_is_read() -> None:
    assert decode(b'{"i": "' + base64.urlsafe_b64encode(nobody()) + b'"}', max_bytes=LIMIT) == nobody()
