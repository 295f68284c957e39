"""An encoded image as its container describes it, before a decoder has seen it."""

from dataclasses import dataclass, field


class UndecodableError(ValueError):
    """The bytes are not a picture that can be analysed; says why."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the decoder gets, and what was read beside it."""

    width: int
    height: int
    data: bytes = field(repr=False)
    """The image with what its decoder needs and nothing else: no metadata, no animation, nothing behind its end."""
    orientation: int = 1
    """How to turn it, as in EXIF: 1 to 8."""
    too_little: bytes | None = field(default=None, repr=False)
    """The image without its last bytes. If these can be decoded, the data of the whole are damaged."""
    padding: int = 0
    """Zeros that stand before a JPEG's end: some cameras fill their buffers, and libjpeg takes that for damage."""


def damaged(how: str) -> UndecodableError:
    """Return the error of an image whose data are damaged."""
    return UndecodableError(f"the image's data is damaged: {how}")


def cut_short(where: str) -> UndecodableError:
    """Return the error of an image whose data end early."""
    return UndecodableError(f"the image's data ends early: {where}")


def refused(why: str) -> UndecodableError:
    """Return the error of an image whose header is wrong, or asks for what is not supported."""
    return UndecodableError(f"the image's header is refused: {why}")
