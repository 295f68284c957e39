"""Which of an image's times to measure from."""

from datetime import datetime, timedelta

LONGEST_DELAY = timedelta(days=1)


def frame_began(*, captured: datetime | None, received: datetime, clock_suspect: bool) -> datetime:
    """Return when a frame's age begins: at its capture, or at its reception where the capture does not tell.

    A replayed photograph was taken long ago, and a suspect clock tells nothing.
    """
    if captured is None or clock_suspect or captured < received - LONGEST_DELAY:
        return received
    return captured
