"""Notice a camera that hangs wrong: nearly everybody in its pictures lies or hangs."""

from collections import deque

LOOKED_AT = 20
"""Measured pictures, the last ones of a Pi: less than half a minute of a camera, more than one person's bow."""
LYING = 60.0
"""Degrees. Of 36 variants of the samples none was above when upright (37 at most), and all were when turned."""
MOST = 15
"""Of `LOOKED_AT`. A turned picture confuses the model: of angles at chance a third would be below `LYING`."""


class Hanging:
    """Counts each Pi's body angles and says once for each that its camera hangs wrong; for one thread."""

    def __init__(self) -> None:
        self._lying: dict[str, deque[bool]] = {}
        self._said: set[str] = set()

    def add(self, pi_id: str, body_angle: float | None) -> str | None:
        """Take a picture's body angle in degrees, or None where it was not measured; return what is to be said."""
        if body_angle is None or pi_id in self._said:
            return None
        lying = self._lying.setdefault(pi_id, deque(maxlen=LOOKED_AT))
        lying.append(body_angle > LYING)
        if len(lying) < LOOKED_AT or sum(lying) < MOST:
            return None
        self._said.add(pi_id)
        del self._lying[pi_id]
        return (
            f"{pi_id}: the body is over {LYING:.0f} degrees from the vertical in {sum(lying)} of the last {LOOKED_AT} "
            "pictures, as if its camera hung wrong; turn the camera or set posture_camera_rotate for that Pi"
        )
