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
    parts = png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(b"\0" * 64)), png_chunk(b"IEND", b"")
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


def exif(orientation: int, *, order: str = "<", kind: int = 3) -> bytes:
    """Return an EXIF block without prefix; `order` as in `struct`, `kind` one of EXIF's integer types."""
    code = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}[kind]
    maker = struct.pack(order + "HHII", 0x010F, 2, 4, int.from_bytes(b"lab\0", "little" if order == "<" else "big"))
    tag = struct.pack(order + "HHI", 0x0112, kind, 1) + struct.pack(order + code, orientation).ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return start + struct.pack(order + "H", 2) + maker + tag + bytes(4)


def xmp(orientation: int, *, as_element: bool = False) -> bytes:
    """Return an XMP packet with the orientation as an attribute or as an element."""
    attribute, element = f' tiff:Orientation="{orientation}"', ""
    if as_element:
        attribute, element = "", f"<tiff:Orientation>{orientation}</tiff:Orientation>"
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        f'xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{attribute}>{element}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """Return a JPEG's segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg_with(jpeg: bytes, *segments: bytes, before: int | None = None) -> bytes:
    """Return the JPEG with more segments: at its start, or before its first segment of the marker `before`."""
    place = 2 if before is None else jpeg.index(bytes((0xFF, before)))
    return jpeg[:place] + b"".join(segments) + jpeg[place:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG's chunk, its checksum right."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(png: bytes, *chunks: bytes, before: bytes = b"IDAT") -> bytes:
    """Return the PNG with more chunks before its first one of that kind."""
    place = png.index(before) - 4
    return png[:place] + b"".join(chunks) + png[place:]


def webp_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a WebP's chunk."""
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


def webp_with(webp: bytes, *, before: bytes = b"", after: bytes = b"", flags: int = 0x0C) -> bytes:
    """Return a simple WebP as an extended one, with more chunks before and after its picture.

    Its flags say that it has EXIF (8) and XMP (4).
    """
    width, height = opened(webp).size
    header = bytes((flags, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = webp_chunk(b"VP8X", header) + before + webp[12:] + after
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def rle_bmp(width: int, height: int) -> bytes:
    """Return a BMP with run-length coding: each row a run of one grey."""
    colours = b"".join(bytes((value, value, value, 0)) for value in range(256))
    rows = b"".join(bytes((width, row % 256, 0, 0)) for row in range(height)) + b"\0\1"
    start = 14 + 40 + len(colours)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + colours + rows


def exif_rotated(jpeg: bytes) -> bytes:
    """Return the picture lying on its side, with an EXIF tag that turns it upright again."""
    lying = opened(jpeg).transpose(Image.Transpose.ROTATE_90)
    return pillow(lying, "JPEG", exif=b"Exif\0\0" + exif(6))  # to be shown turned by 90 degrees clockwise


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
