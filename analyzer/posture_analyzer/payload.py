"""What a message holds: an encoded image, as raw bytes or as base64 text, and the key that identifies it."""

import base64
import binascii
import hashlib
import re
from uuid import UUID

_BASE64_START = re.compile(rb"\s*(?:data:[a-z]+/[a-z0-9.+-]+;base64,)?", re.IGNORECASE)
_WHITE_SPACE = b" \t\r\n"
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")
"""How encoded images start; none of these is the start of base64 text that encodes an image."""


class PayloadError(ValueError):
    """The message holds no image; says why."""


def decode(payload: bytes, *, max_bytes: int) -> bytes:
    """Return the encoded image in a message's payload.

    Raises:
        PayloadError: it is empty, neither an image nor base64 text, or larger than `max_bytes` when decoded.
    """
    image = payload if payload.startswith(_MAGIC) else _decode_base64(payload)
    if not image:
        raise PayloadError("the payload is empty")
    if len(image) > max_bytes:
        raise PayloadError(f"the image has {len(image)} bytes, more than the {max_bytes} of POSTURE_MAX_IMAGE_BYTES")
    return image


def _decode_base64(payload: bytes) -> bytes:
    start = _BASE64_START.match(payload)
    text = payload[start.end() :] if start else payload
    text = text.translate(_FROM_URL_SAFE, _WHITE_SPACE)
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise PayloadError("the payload is neither an encoded image nor base64 text") from None


def image_key(image_id: str | None, topic: str, image: bytes) -> str:
    """Return the key by which a repeated image is recognised: its UUID, or the hash of its topic and bytes."""
    if image_id is not None:
        try:
            return str(UUID(image_id))
        except ValueError:
            pass
    return hashlib.sha256(topic.encode() + image).hexdigest()
