from pathlib import Path

import pytest
from posture_common.settings import MAX_IMAGE_BYTES, SettingsError
from posture_publisher.publisher import camera_of, largest_image
from posture_publisher.replay import Replay
from posture_publisher.settings import PublisherSettings

NEEDED = {"POSTURE_PI_ID": "pi1", "POSTURE_CAMERA": "directory:/samples"}


def test_two_settings_are_enough() -> None:
    settings = PublisherSettings.read(NEEDED)
    assert settings.spool_dir == Path("/var/lib/posture/spool")
    assert (settings.interval, settings.encoding, settings.window) == (1.0, "base64", 100)
    assert (settings.confirm_timeout, settings.reconnect_timeout) == (600.0, 30.0)
    assert (settings.http_port, settings.spool_max_bytes, settings.replay_rounds) == (9320, 1024**3, 1)
    assert (settings.camera_rotate, settings.max_image_bytes) == (0, 20 * 2**20)
    assert isinstance(camera_of(settings), Replay)


@pytest.mark.parametrize("missing", NEEDED)
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(SettingsError, match=f"^{missing} is not set$"):
        PublisherSettings.read({name: value for name, value in NEEDED.items() if name != missing})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("POSTURE_PI_ID", value)
            for value in ("all", "posture-1", "Pi1", "pi_1", "-pi", "pi-", "a" * 41, "pi/1", "pi1\n")
        ),
        *(
            ("POSTURE_CAMERA", value)
            for value in ("webcam", "v4l2:", "v4l2:video0", "directory:samples", "picamera2:0")
        ),
        *(("POSTURE_INTERVAL", value) for value in ("0", "-1", "inf", "nan", "often")),
        *(("POSTURE_WINDOW", value) for value in ("0", "1.5")),
        *(("POSTURE_CAMERA_ROTATE", value) for value in ("45", "-90", "360", "left", "90.5")),
        ("POSTURE_MAX_IMAGE_BYTES", "0"),
        ("POSTURE_ENCODING", "hex"),
        ("POSTURE_REPLAY_ROUNDS", "-1"),
        ("POSTURE_SPOOL_MAX_BYTES", "0"),
        ("POSTURE_CONFIRM_TIMEOUT", "0"),
        ("POSTURE_RECONNECT_TIMEOUT", "0"),
        ("POSTURE_HTTP_PORT", "0"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        PublisherSettings.read({**NEEDED, name: value})


@pytest.mark.parametrize("pi_id", ["p", "pi1", "a" * 40, "kitchen-left-2", "1"])
def test_ids_that_are_right(pi_id: str) -> None:
    assert PublisherSettings.read({**NEEDED, "POSTURE_PI_ID": pi_id}).pi_id == pi_id


@pytest.mark.parametrize(("spool", "largest"), [(1024**3, MAX_IMAGE_BYTES), (50_000, 48_976), (10, 0)])
def test_an_image_that_never_fits_the_spool_is_too_large(spool: int, largest: int) -> None:
    assert largest_image(PublisherSettings.read({**NEEDED, "POSTURE_SPOOL_MAX_BYTES": str(spool)})) == largest


def test_the_largest_image_is_set_as_the_analyzers() -> None:
    assert largest_image(PublisherSettings.read({**NEEDED, "POSTURE_MAX_IMAGE_BYTES": "3000"})) == 3000


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_camera_may_hang_in_four_ways(degrees: int) -> None:
    assert PublisherSettings.read({**NEEDED, "POSTURE_CAMERA_ROTATE": str(degrees)}).camera_rotate == degrees
