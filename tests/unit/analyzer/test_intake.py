"""From messages to work."""

import base64
import hashlib
import logging
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from posture_analyzer import intake
from posture_common.mqtt import Message

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
IMAGE = b"\xff\xd8\xff an image"
UUID = "6f1c2d5e-8f1a-4a53-9b0e-0d3c6a1e9f10"


def read(topic: str = "images/pi1", payload: bytes = IMAGE, max_bytes: int = 1000, **properties: str) -> intake.Work:
    message = Message(topic, payload, properties, acknowledge)
    return intake.read(message, received_time=NOW, max_bytes=max_bytes)


def acknowledge() -> None:
    """What the work of `read` is acknowledged by."""


def test_a_message_with_everything() -> None:
    assert read(
        payload=base64.b64encode(IMAGE),
        image_id=UUID.upper(),
        captured_at="2026-01-02T03:04:04.5Z",
        seq="7",
        filename="shot.jpg",
        rotate="270",
    ) == intake.Work(
        pi_id="pi1",
        image_id=UUID,
        filename="shot.jpg",
        captured_time=NOW - timedelta(seconds=0.5),
        received_time=NOW,
        image=IMAGE,
        clock_suspect=False,
        rotate=270,
        problem=None,
        acknowledgements=[acknowledge],
    )


def test_a_message_with_bare_base64() -> None:
    work = read(payload=base64.b64encode(IMAGE))
    assert (work.filename, work.captured_time, work.problem) == (None, None, None)
    assert work.image_id == hashlib.sha256(b"images/pi1" + IMAGE).hexdigest()


def test_raw_and_base64_of_an_image_are_one_image() -> None:
    assert read(payload=IMAGE).key == read(payload=base64.b64encode(IMAGE)).key
    assert read(payload=IMAGE).key == ("pi1", read().image_id)


@pytest.mark.parametrize("pi_id", ["pi1", "a", "Pi_2-x", "A" * 64, "all"])
def test_foreign_ids_are_taken(pi_id: str) -> None:
    assert read(f"images/{pi_id}").pi_id == pi_id


@pytest.mark.parametrize(
    "topic",
    [
        "images",
        "images/",
        "images/..",
        "images/../x",
        "images/a/b",
        "images/a b",
        "images/a\n",
        "images/ä",
        "images/" + "a" * 65,
        "image/pi1",
        "Images/pi1",
        "/images/pi1",
        "images/pi1/",
        "images/.",
        "images/\0",
    ],
)
def test_other_topics_are_refused(topic: str) -> None:
    with pytest.raises(intake.ForeignTopicError, match="is not images/<pi_id>") as refusal:
        read(topic)
    assert "\n" not in str(refusal.value)


@given(st.text())
def test_any_topic_is_a_pis_or_refused(topic: str) -> None:
    try:
        work = read(topic)
    except intake.ForeignTopicError:
        return
    assert topic == f"images/{work.pi_id}"
    assert work.pi_id.replace("_", "").replace("-", "").isalnum() or set(work.pi_id) <= set("_-")


@pytest.mark.parametrize(
    ("payload", "problem"),
    [(b"", "empty"), (b"no image!", "neither"), (IMAGE + bytes(1000), "POSTURE_MAX_IMAGE_BYTES")],
)
def test_a_message_without_an_image_is_work_that_says_why(payload: bytes, problem: str) -> None:
    work = read(payload=payload)
    assert work.image == b""
    assert problem in (work.problem or "")
    assert work.image_id == hashlib.sha256(b"images/pi1" + payload).hexdigest()


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("shot.jpg", "shot.jpg"),
        ("", None),
        ("\0", None),
        ("a\0b.jpg", "ab.jpg"),
        ("ü" * 300, "ü" * 255),
        ("../x", "../x"),
    ],
)
def test_the_filename_is_one_that_the_table_can_hold(given_name: str, kept: str | None) -> None:
    assert read(filename=given_name).filename == kept


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02T03:04:05+00:00", NOW),
        ("2026-01-02T03:04:05Z", NOW),
        ("2026-01-02T04:04:05+01:00", NOW),
        ("2026-01-02 03:04:05.000001Z", NOW + timedelta(microseconds=1)),
        ("2026-01-02t03:04:05z", NOW),
        ("2025-12-31T23:59:60Z", datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("1969-12-31T19:00:05-05:00", datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)),
        ("2026-01-01t00:59:60.5+01:00", datetime(2025, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)),
    ],
)
def test_the_time_of_capture_is_read(text: str, moment: datetime) -> None:
    assert read(captured_at=text).captured_time == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1767323045",
        "2026-13-01T00:00:00Z",
        "\n",
        "2026-01-02T25:00:00Z",
        "2026-01-02T03:60:00Z",
        "1969-12-31T23:59:59Z",
        "3000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
    ],
)
def test_a_time_that_cannot_be_read_is_left_out(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(captured_at=text).captured_time is None
    assert "not an RFC 3339 time" in caplog.text
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("zone", ["+05:45", "-12:00", "+23:00", "-23:59", "+01:00:00.000005"])
def test_the_time_of_capture_is_one_that_the_table_can_hold(zone: str) -> None:
    # PostgreSQL refuses a zone of 16 hours or more, or of fractions of a second.
    captured = read(captured_at=f"2026-01-02T03:04:05{zone}").captured_time
    assert captured is not None
    assert captured == datetime.fromisoformat(f"2026-01-02T03:04:05{zone}")
    assert captured.utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05", "2026-01-02 03:04:05.5", "2026-01-02"])
def test_a_time_without_a_zone_is_left_out(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        work = read(captured_at=text, clock="unsynchronised")
    assert (work.captured_time, work.clock_suspect) == (None, False)
    assert f"{text!r} has no zone" in caplog.text
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("text", "suspect"),
    [
        ("2026-01-02T03:09:05Z", False),
        ("2026-01-02T03:09:05.000001Z", True),
        ("2099-01-01T00:00:00Z", True),
        ("1970-01-01T00:00:00Z", True),
        ("1969-12-31T19:00:00-05:00", True),
        ("1970-01-07T23:59:59.999999Z", True),
        ("1970-01-08T00:00:00Z", False),
        ("1999-12-31T23:59:59Z", False),
        ("2000-01-01T00:00:12Z", True),
        ("2000-01-08T00:00:00Z", False),
        ("2025-03-01T10:00:00+01:00", False),
        ("1985-07-13T12:00:00Z", False),
    ],
)
def test_a_time_that_cannot_be_is_kept_and_marked(text: str, suspect: bool) -> None:
    work = read(captured_at=text)
    assert work.captured_time == datetime.fromisoformat(text)
    assert work.clock_suspect is suspect


@pytest.mark.parametrize(("clock", "suspect"), [("unsynchronised", True), ("synchronised", False), ("", False)])
def test_a_publisher_says_that_its_clock_is_not_synchronised(clock: str, suspect: bool) -> None:
    assert read(captured_at="2026-01-02T03:04:05Z", clock=clock).clock_suspect is suspect


def test_without_a_time_there_is_no_clock_to_suspect() -> None:
    assert not read(clock="unsynchronised").clock_suspect


@pytest.mark.parametrize(("text", "degrees"), [("0", 0), ("90", 90), ("180", 180), ("270", 270)])
def test_an_image_may_have_to_be_turned(text: str, degrees: int, caplog: pytest.LogCaptureFixture) -> None:
    assert read(rotate=text).rotate == degrees
    assert not caplog.messages


@pytest.mark.parametrize("text", ["", "45", "360", "-90", "90.0", " 90", "left", "0" * 100])
def test_other_turns_are_ignored_with_a_warning(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(rotate=text).rotate == 0
    assert "is not 0, 90, 180 or 270" in caplog.text
    assert len(caplog.text) < 250
