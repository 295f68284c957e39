"""Read a JPEG's segments: size, orientation, and what of it the decoder needs.

What the decoder gets is rebuilt. Metadata and what stands behind the image never reach it, and neither do those
oddities of sound pictures that libjpeg warns of: it tells its first warning only, which would hide that of damage.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import orientation
from .encoded import Encoded, UndecodableError, cut_short, damaged, refused

MAX_SEGMENTS = 1000
MAX_SCANS = 100
"""Progressive JPEGs have about ten; one with 37,000 empty scans kept a processor busy for minutes."""

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_START, _END, _SCAN, _RESTARTS = 0xD8, 0xD9, 0xDA, 0xDD
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_WITHOUT_BODY = (0x01, *range(0xD0, 0xD8), _START)
_FRAMES = (0xC0, 0xC1, 0xC2)
_PROGRESSIVE = 0xC2
_COEFFICIENTS = 64
_OTHER_FRAMES = {
    **dict.fromkeys((0xC3, 0xC5, 0xC6, 0xC7), "a lossless or hierarchical JPEG"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "a JPEG with arithmetic coding"),
    0xF7: "a JPEG-LS",
}
_NEEDED = (*_FRAMES, 0xC4, 0xDB, _RESTARTS, _APP0, _APP14)
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_RESTARTS_IN_ORDER = bytes(range(0xD0, 0xD8))


@dataclass(frozen=True, slots=True)
class _Segment:
    marker: int
    start: int
    """Where its marker stands."""
    body: bytes
    end: int


@dataclass(frozen=True, slots=True)
class _Frame:
    marker: int
    width: int
    height: int
    components: bytes
    """The identifier of each."""
    sampling: Sequence[tuple[int, int]]
    """Of each component, across and down."""


def parse(image: bytes) -> Encoded:
    """Describe a JPEG, the first one where there are several.

    Raises:
        UndecodableError: its kind is not supported, it is damaged, or it ends early.
    """
    segments = list(_segments(image))
    scans = [segment for segment in segments if segment.marker == _SCAN]
    if not scans:
        raise refused("there is no picture in it")
    header = [segment for segment in segments if segment.start < scans[0].start]
    frame = _frame(header)
    if segments[-1].marker != _END:
        raise cut_short("the marker at its end is missing")
    _check_scans(frame, scans)
    if len(scans) == 1:
        _check_restarts(image, frame, header, scans[0], segments[-1].start)
    data = image[scans[-1].end : segments[-1].start]
    app1 = [segment.body for segment in header if segment.marker == _APP1]
    return Encoded(
        frame.width,
        frame.height,
        b"".join(_rebuilt(image, frame, header, scans, segments[-1].end)),
        orientation.find(
            [body for body in app1 if body.startswith(orientation.EXIF_PREFIX)],
            [body.removeprefix(_XMP) for body in app1 if body.startswith(_XMP)],
        ),
        padding=len(data) - len(data.rstrip(b"\0")),
    )


def _segments(image: bytes) -> Iterator[_Segment]:
    """Yield the segments up to the end of the first image, without the scans' data."""
    place = 2
    scans = 0
    for _ in range(MAX_SEGMENTS + MAX_SCANS):
        found = (_MARKER_IN_SCAN if scans else _MARKER).search(image, place)
        if found is None:
            return
        start, marker = found.start(), image[found.start() + 1]
        place = start + 2
        if marker == _END:
            yield _Segment(marker, start, b"", place)
            return
        if marker in _WITHOUT_BODY:
            continue
        if marker < _FRAMES[0]:
            raise damaged(f"there is a marker {marker:02x}, which JPEG does not have")
        length = int.from_bytes(image[place : place + 2])
        end = place + length
        if length < 2 or end > len(image):
            raise cut_short(f"within segment {marker:02x}")
        yield _Segment(marker, start, image[place + 2 : end], end)
        place = end
        scans += marker == _SCAN
        if scans > MAX_SCANS:
            raise UndecodableError(f"the image has more than {MAX_SCANS} scans")
    raise refused(f"it has more than {MAX_SEGMENTS} segments")


def _frame(header: Sequence[_Segment]) -> _Frame:
    for segment in header:
        if segment.marker in _OTHER_FRAMES:
            raise refused(f"{_OTHER_FRAMES[segment.marker]} is not supported")
        if segment.marker in _FRAMES:
            body = segment.body
            if len(body) < 9 or len(body) != 6 + 3 * body[5]:
                raise refused("its frame header has a wrong length")
            bits, height, width, components = struct.unpack_from(">BHHB", body)
            if bits != 8:
                raise refused(f"a JPEG with {bits} bits a channel is not supported")
            sampling = [(body[place] >> 4, body[place] & 15) for place in range(7, len(body), 3)]
            if not all(across and down for across, down in sampling):
                raise refused("its frame header has a sampling of 0")
            return _Frame(segment.marker, width, height, body[6::3], sampling[:components])
    raise refused("its frame header is missing")


def _check_scans(frame: _Frame, scans: Sequence[_Segment]) -> None:
    """Raise where a scan is missing: libjpeg shows what it has, of a progressive JPEG's first scan coarse blocks."""
    missing = {(component, number) for component in frame.components for number in range(_COEFFICIENTS)}
    for scan in scans:
        count = scan.body[0] if scan.body else 0
        first, last, bits = 0, _COEFFICIENTS - 1, 0
        if frame.marker == _PROGRESSIVE and len(scan.body) == 4 + 2 * count:
            first, last, bits = scan.body[-3], scan.body[-2], scan.body[-1] & 15  # so many low bits come later
        if not bits:
            missing -= {
                (component, number)
                for component in scan.body[1 : 1 + 2 * count : 2]
                for number in range(first, last + 1)
            }
    if missing:
        raise cut_short("some of its scans are missing")


def _check_restarts(image: bytes, frame: _Frame, header: Sequence[_Segment], scan: _Segment, end: int) -> None:
    """Raise where a restart marker is missing: libjpeg does not say so after it has warned of a camera's padding."""
    interval = next((int.from_bytes(s.body[:2]) for s in reversed(header) if s.marker == _RESTARTS), 0)
    if not interval or not scan.body or scan.body[0] != len(frame.sampling):
        return
    widest, highest = (1, 1) if len(frame.sampling) == 1 else map(max, zip(*frame.sampling, strict=True))
    blocks = -(-frame.width // (8 * widest)) * -(-frame.height // (8 * highest))
    expected = max(0, -(-blocks // interval) - 1)
    if expected > end - scan.end:
        raise damaged("restart markers are missing")
    found = b"".join(_RESTART.findall(image, scan.end, end))[:expected]
    if found != (_RESTARTS_IN_ORDER * (expected // 8 + 1))[:expected]:
        raise damaged("restart markers are missing or out of order")


def _rebuilt(
    image: bytes, frame: _Frame, header: Sequence[_Segment], scans: Sequence[_Segment], end: int
) -> Iterator[bytes | memoryview]:
    view = memoryview(image)
    yield view[:2]
    for segment in header:
        if segment.marker in _NEEDED:
            body = _unremarkable(segment, frame)
            yield struct.pack(">BBH", 0xFF, segment.marker, len(body) + 2)
            yield body
    if frame.marker == _PROGRESSIVE:
        yield view[scans[0].start : end]
        return
    ends = [*(scan.start for scan in scans[1:]), end]
    for scan, until in zip(scans, ends, strict=True):
        # Of a sequential JPEG's scan these three bytes have one right value; some encoders write others.
        yield view[scan.start : scan.end - 3]
        yield b"\0\x3f\0"
        yield view[scan.end : until]


def _unremarkable(segment: _Segment, frame: _Frame) -> bytes:
    """Return a header segment's body with the values that libjpeg takes where it warns of others."""
    body = segment.body
    if segment.marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 7:
        return body[:5] + b"\1\1" + body[7:]
    if segment.marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
        known, default = {3: (b"\0\1", 1), 4: (b"\0\2", 2)}.get(len(frame.sampling), (b"\0\1\2", 0))
        if body[11] not in known:
            return body[:11] + bytes([default]) + body[12:]
    return body
