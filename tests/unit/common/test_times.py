"""From when a frame's age counts."""

from datetime import UTC, datetime, timedelta

import pytest
from posture_common.times import frame_began

RECEIVED = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("captured", "suspect", "began"),
    [
        (None, False, RECEIVED),
        (RECEIVED - timedelta(seconds=2), False, RECEIVED - timedelta(seconds=2)),
        (RECEIVED - timedelta(seconds=2), True, RECEIVED),
        (RECEIVED + timedelta(minutes=5), False, RECEIVED + timedelta(minutes=5)),
        (RECEIVED - timedelta(days=1), False, RECEIVED - timedelta(days=1)),
        (RECEIVED - timedelta(days=1, microseconds=1), False, RECEIVED),
        (datetime(2025, 3, 1, tzinfo=UTC), False, RECEIVED),
    ],
)
def test_an_age_begins_at_a_credible_capture(captured: datetime | None, suspect: bool, began: datetime) -> None:
    assert frame_began(captured=captured, received=RECEIVED, clock_suspect=suspect) == began
