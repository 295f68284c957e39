"""Rows as the analyzer makes them."""

from datetime import UTC, datetime
from typing import Any

from posture_analyzer.database import Row

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def row(image_id: str, **values: Any) -> Row:
    """Return a row of pi1 that the table takes; `values` are other ones."""
    usual: dict[str, Any] = {
        "pi_id": "pi1",
        "image_id": image_id,
        "filename": "shot.jpg",
        "captured_time": NOON,
        "received_time": NOON,
        "analyzed_time": NOON,
        "neck_angle": 36.9,
        "body_angle": 1.25,
        "posture_status": "Good",
        "landmarks_detected": True,
        "processed_by": "nuc",
        "stream": "pi1",
        "inference_ms": 48.5,
        "uncertainty": None,
        "confidence": "sure",
    }
    return Row(**usual | values)
