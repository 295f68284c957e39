"""What bytes look like, by their start."""

import base64
import zipfile
from io import BytesIO

import pytest
from posture_analyzer.kinds import kind_of

from tests.support import images

SHOWN = images.opened(images.nobody())


def box(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + bytes(12)


def archive() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("photo.jpg", images.nobody())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        *[(images.pillow(SHOWN, kind), kind) for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "PDF")],
        (images.pillow(SHOWN, "WEBP"), "WebP"),
        (images.pillow(SHOWN, "JPEG2000"), "JPEG 2000"),
        (images.pillow(SHOWN, "PPM"), "PNM"),
        (images.pillow(SHOWN, "AVIF"), "AVIF"),
        (box(b"heic"), "HEIC"),
        (box(b"mif1"), "HEIC"),
        (box(b"avis"), "AVIF"),
        (box(b"isom"), "MP4"),
        (box(b"qt  "), "QuickTime"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (archive(), "ZIP"),
        (b"RIFF\x10\0\0\0AVI LIST", "AVI"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\xef\xbb\xbf\r\n <html lang=en>", "HTML"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b'<?xml version="1.0"?><x:xmpmeta/>', "XML"),
        (b'{"image": "/9j/4AAQ"}', "JSON"),
        (b'[{"image": 1}]', "JSON"),
        (b"--frame\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8", "HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "HTTP"),
    ],
)
def test_a_kind_is_seen_by_its_first_bytes(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 100, b"hello", b"RIFF", b"{", b"\xff\xd8", base64.b64encode(images.nobody()), b"Perhaps 1"]
)
def test_other_bytes_have_no_kind(data: bytes) -> None:
    assert kind_of(data) is None
