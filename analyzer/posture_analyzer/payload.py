"""What a message holds: an encoded image, raw or as text and in whatever it is wrapped, and the key that identifies it.

Each step looks at the first bytes alone, or is one of Python's own passes over the whole: a payload that is made to be
hard to read takes no longer than an image of its size.
"""

import base64
import codecs
import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from uuid import UUID

from .kinds import kind_of

_HEAD_BYTES = 65_536
"""So many bytes from its start a payload is looked at for where its image begins."""
_START_BYTES = 512
_SHOWN_BYTES = 24
_TEXTS_MAX = 8
_LAYERS = 4
"""So many wrappings come off, one after the other: base64 of a JSON object with base64 is three."""
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")
"""How encoded images start; none of these is the start of base64 text that encodes an image."""
_RAW = rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|BM....\0\0\0\0"
_TEXT = rb"(?:_|\\?/|\\u002[fF]|%2[fF])9j|iVBORw0KG|UklGR|Qk[\w+/-]{6}AA|R0lGOD|SUkqA|TU0AK"
"""How base64 text of an image starts, with what JSON and forms make of a slash."""
_URI = rb"[Dd][Aa][Tt][Aa](?:%3[aA]|:)"

# What it is wrapped in, and where in that it begins; the repetitions are bounded, or stand at the start.
_QUOTED = re.compile(rb"\s*(?:[\[{]|[bB]?[\"'])")
_IN_QUOTES = re.compile(rb"([\"'])\s*(?=" + _URI + rb"|" + _TEXT + rb")")
_IN_REPR = re.compile(rb"[bB]([\"'])(?=\\x(?:ff\\xd8\\xff|89PNG)|RIFF|BM)")
_NUMBERS = re.compile(
    rb"\[\s*(?=(?:255|-1)\s*,\s*(?:216|-40)\s*,|(?:137|-119)\s*,\s*80\s*,|82\s*,\s*73\s*,|66\s*,\s*77\s*,)"
)
_FORM = re.compile(rb"\s*[\w.%+\[\]-]{1,64}=")
_IN_FORM = re.compile(rb"=(?=" + _URI + rb"|" + _TEXT + rb")")
_HEADERS = re.compile(rb"\s*(?:--[^\r\n]{1,70}\r?\n|HTTP/|(?:POST|PUT) |[A-Za-z-]{1,40}:)")
_AFTER_HEADERS = re.compile(rb"\n\r?\n\s{0,8}(?=" + _RAW + rb"|" + _URI + rb"|" + _TEXT + rb")", re.DOTALL)
_BOUNDARY = re.compile(rb"(?:\A\s*|\n)(--[^\r\n]{1,70})\r?\n")

_DATA_URI = re.compile(rb"\s*(?:data:[^,]{0,1000}|[\w/.+;:=-]{0,100})base64\s*,", re.IGNORECASE)
_HEX = re.compile(
    rb"\s*(?:0x|\\x)?(?=ff[ :]?d8[ :]?ff|89[ :]?50[ :]?4e[ :]?47|52[ :]?49[ :]?46[ :]?46|42[ :]?4d)", re.IGNORECASE
)
_PERCENT = {
    b"2B": b"+",
    b"2F": b"/",
    b"3D": b"=",
    b"3A": b":",
    b"3B": b";",
    b"2C": b",",
    b"0D": b"",
    b"0A": b"",
    b"20": b"",
}
_ESCAPED = {b"/": b"/", b"n": b"", b"r": b"", b"t": b"", b"u002B": b"+", b"u002F": b"/", b"u003D": b"="}
"""What forms and JSON write for the characters of base64 text, for its line ends and for a data URI's own."""
_BYTES = {str(number).encode(): number & 0xFF for number in range(-128, 256)}
"""What numbers in JSON stand for; Java's bytes have a sign."""
_NUMBERS_AT_ONCE = 65_536
"""Characters of them: as objects they take 20 times as much memory."""
_WHITE_SPACE = b" \t\r\n"
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class PayloadError(ValueError):
    """The message holds no image; says why."""


def decode(payload: bytes, *, max_bytes: int) -> bytes:
    """Return the encoded image in a message's payload.

    Raises:
        PayloadError: it is empty, nothing that is read, or larger than `max_bytes` when decoded.
    """
    image = payload
    for _ in range(_LAYERS):
        if image.startswith(_MAGIC):
            break
        try:
            image = _unwrapped(image)
        except (KeyError, ValueError):
            raise PayloadError(_refusal(image, wrapped=image is not payload)) from None
        if not image:
            raise PayloadError("the payload is empty")
    if not image.startswith(_MAGIC):
        raise PayloadError(_refusal(image, wrapped=True))
    if len(image) > max_bytes:
        raise PayloadError(f"the image has {len(image)} bytes, more than the {max_bytes} of POSTURE_MAX_IMAGE_BYTES")
    return image


def _unwrapped(payload: bytes) -> bytes:
    """Return what is in a payload that is text, or begins like text; raises KeyError or ValueError."""
    inner = _inside(_utf_8(payload)).lstrip(_WHITE_SPACE)
    if inner.startswith(_MAGIC):
        return inner
    inner = _plain(inner, b"%", _PERCENT)
    start = inner[:_START_BYTES]
    if uri := _DATA_URI.match(start):
        inner = inner[uri.end() :]
    if digits := _HEX.match(start):
        return bytes.fromhex(inner[digits.end() :].replace(b":", b"").rstrip(b"\0").decode("ascii"))
    return _base64(inner)


def _utf_8(payload: bytes) -> bytes:
    """Return text without the mark of its encoding; in UTF-16, as PowerShell writes it, that is more than a mark."""
    if payload.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with suppress(UnicodeDecodeError):
            return payload.decode("utf-16").encode("ascii", "replace")
    return payload.removeprefix(codecs.BOM_UTF8)


def _inside(text: bytes) -> bytes:
    """Return what stands in quotes (JSON, a repr), in a form's field or behind headers, else the text itself."""
    head = text[:_HEAD_BYTES]
    if _QUOTED.match(head):
        if quoted := _quoted(text):
            return _plain(quoted, b"\\", _ESCAPED)
        if found := _NUMBERS.search(head):
            return _from_numbers(text, found.end())
        if found := _IN_REPR.search(head):
            return codecs.escape_decode(text[found.end() : text.rfind(found[1])])[0]
    elif _FORM.match(head):
        if found := _IN_FORM.search(head):
            return _until(text, found.end(), b"&")
    elif _HEADERS.match(head) and not _DATA_URI.match(head) and (found := _AFTER_HEADERS.search(head)):
        boundary = _BOUNDARY.search(head)
        if boundary is None:
            return text[found.end() :]
        return _until(text, found.end(), b"\n" + boundary[1]).removesuffix(b"\r")
    return text


def _quoted(text: bytes) -> bytes:
    """Return the text in quotes that is an image; a thumbnail may stand beside it: the longest counts."""
    longest, place = b"", 0
    for _ in range(_TEXTS_MAX):
        found = _IN_QUOTES.search(text, place, place + _HEAD_BYTES)
        if found is None:
            break
        quoted = _until(text, found.end(), found[1])
        place = found.end() + len(quoted)
        longest = max(longest, quoted, key=len)
    # JSON in a text of JSON has its quotes behind backslashes, and its backslashes too.
    longest = longest.rstrip(b"\\")
    while b"\\\\" in longest:
        longest = longest.replace(b"\\\\", b"\\")
    return longest


def _from_numbers(text: bytes, start: int) -> bytes:
    """Return the bytes of a list of numbers, as Node.js and Java write them; raises KeyError."""
    end = text.find(b"]", start)
    end = len(text) if end < 0 else end
    image = bytearray()
    while start < end:
        comma = text.find(b",", start + _NUMBERS_AT_ONCE, end)
        stop = end if comma < 0 else comma
        numbers = text[start:stop].translate(None, _WHITE_SPACE).split(b",")
        image += bytes(map(_BYTES.__getitem__, numbers))
        start = stop + 1
    return bytes(image)


def _until(text: bytes, start: int, end: bytes) -> bytes:
    at = text.find(end, start)
    return text[start:] if at < 0 else text[start:at]


def _plain(text: bytes, mark: bytes, meanings: Mapping[bytes, bytes]) -> bytes:
    """Return the text with what the mark and each of the following codes mean; letters of codes may be small."""
    if mark in text:
        for code, meaning in meanings.items():
            for written in (code, code.lower()):
                text = text.replace(mark + written, meaning)
    return text


def _base64(text: bytes) -> bytes:
    """Raises binascii.Error, a ValueError."""
    text = text.translate(_FROM_URL_SAFE, _WHITE_SPACE)
    text = text.rstrip(b"\0") or text  # C's end of a string
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)


def _refusal(content: bytes, *, wrapped: bool) -> str:
    it, kind = "what the payload holds" if wrapped else "the payload", kind_of(content)
    if kind is None:
        return f"{it} is neither an encoded image nor base64 text: it begins with {content[:_SHOWN_BYTES]!r}"
    if kind == "JSON":
        return f"{it} begins like JSON, and nothing in its first 64 KiB is an image in base64 or in numbers"
    return f"{it} begins like {kind}, which is not read: send a JPEG, PNG, WebP or BMP image"


def image_key(image_id: str | None, topic: str, image: bytes) -> str:
    """Return the key by which a repeated image is recognised: its UUID, or the hash of its topic and bytes."""
    if image_id is not None:
        try:
            return str(UUID(image_id))
        except ValueError:
            pass
    return hashlib.sha256(topic.encode() + image).hexdigest()
