"""Images that cannot or must not be analysed get a clear row, and the stream goes on."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.conftest import Station
from tests.support import images
from tests.support.images import Shot, nobody, photograph

UNDECODABLE = {"Undecodable image"}
BAD = {"Bad"}

CASES: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "truncated": (lambda: photograph("camera")[:5000], UNDECODABLE),
    "cut-in-header": (lambda: photograph("camera")[:30], UNDECODABLE),
    "empty": (lambda: b"", UNDECODABLE),
    "zero-size": (lambda: images.jpeg_with_header(0, 0), UNDECODABLE),
    "zero-size-png": (lambda: images.png_with_header(0, 0), UNDECODABLE),
    "largest-header": (lambda: images.jpeg_with_header(65535, 65535), UNDECODABLE),
    "largest-header-png": (lambda: images.png_with_header(2**31 - 1, 2**31 - 1), UNDECODABLE),
    "huge": (lambda: images.huge_jpeg(12000, 12000), UNDECODABLE),
    "text": (lambda: b"this is no image, but a sentence", UNDECODABLE),
    "base64-of-text": (lambda: b"QUJD" * 100, UNDECODABLE),
    "fifty-megabytes": (lambda: photograph("camera") + bytes(50_000_000), UNDECODABLE),
    "nobody": (nobody, {"No person detected"}),
    "tiny": (lambda: nobody(1, 1), {"No person detected"}),
    "two-people": (lambda: images.side_by_side(photograph("camera")), {"Good", "Bad", "Landmarks not visible"}),
    "half-a-person": (lambda: photograph("astronaut"), {"Landmarks not visible"}),
    "cmyk": (lambda: images.pillow(images.opened(photograph("camera")).convert("CMYK"), "JPEG"), BAD | UNDECODABLE),
    "grey": (lambda: images.pillow(images.opened(photograph("camera")).convert("L"), "JPEG"), BAD),
    "grey-png": (lambda: images.pillow(images.opened(photograph("camera")).convert("L"), "PNG"), BAD),
    "with-alpha": (lambda: images.pillow(images.opened(photograph("camera")).convert("RGBA"), "PNG"), BAD),
    "sixteen-bit-png": (lambda: images.sixteen_bit_png(photograph("camera")), BAD),
    "exif-rotated": (lambda: images.exif_rotated(photograph("camera")), BAD),
    "damaged-animation": (lambda: images.damaged_animation(photograph("camera")), UNDECODABLE),
    "gif": (lambda: images.pillow(images.opened(photograph("camera")), "GIF"), BAD | UNDECODABLE),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("raw", [False, True], ids=["base64", "raw"])
def test_a_refused_image_gets_its_row_and_does_not_block(station: Station, case: str, raw: bool) -> None:
    make, expected = CASES[case]
    pi_id = f"{case}-{'raw' if raw else 'base64'}"
    shot, good = Shot(data=make(), filename=f"{case}.jpg"), Shot(data=nobody())
    station.send(pi_id, shot, good, raw=raw)
    station.wait_result(good)
    station.wait_result(shot)
    rows = {row["image_id"]: row for row in station.wait_rows(pi_id, 2)}
    assert rows[good.image_id]["posture_status"] == "No person detected"

    row = rows[shot.image_id]
    assert row["posture_status"] in expected
    assert row["filename"] == f"{case}.jpg"
    assert row["landmarks_detected"] is (row["posture_status"] not in {"Undecodable image", "No person detected"})
    if expected == BAD:
        assert 55 <= row["neck_angle"] <= 75, "the picture was not read as the photograph that it is"
    if row["posture_status"] == "Undecodable image":
        assert row["neck_angle"] is None
        assert row["body_angle"] is None
    assert station.analyzer.rss_mb() < 600, "a picture's size is checked before it is decoded"


def test_an_undecodable_image_is_logged_with_its_reason(station: Station) -> None:
    station.send("why", Shot(data=images.png_with_header(30000, 30000), filename="bomb.png"))
    station.wait_rows("why")
    [line] = [line for line in station.analyzer.output.splitlines() if "bomb.png" in line]
    assert "why" in line
    assert "30000 x 30000" in line
    assert "POSTURE_MAX_PIXELS" in line


def test_a_bare_empty_payload_by_mqtt_3_is_a_row_too(station: Station) -> None:
    station.send("bare-empty", Shot(data=b""), v5=False)
    row: dict[str, Any]
    [row] = station.wait_rows("bare-empty")
    assert row["posture_status"] == "Undecodable image"
