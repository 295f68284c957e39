"""One offloader at a time: the Lease posture-offloader, taken, renewed at every look, given back at the end."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from posture_edge.job import PART_OF

from .cluster import LEASE, Cluster, ConflictError, Object

DURATION_S = 15


@dataclass(frozen=True)
class _Sight:
    """A renewal by somebody else, and when we saw it first, by our own clock: nobody else's can be trusted."""

    holder: str
    renewed: str
    at: float


class Lease:
    """The Lease as `holder` takes it. Its methods raise ClusterError."""

    def __init__(self, cluster: Cluster, holder: str) -> None:
        self._cluster = cluster
        self._holder = holder
        self._sight = _Sight("", "", 0.0)
        self._renewed_at = float("-inf")

    @property
    def held(self) -> bool:
        """Whether it is certainly still ours."""
        return time.monotonic() - self._renewed_at < DURATION_S

    def take(self) -> str | None:
        """Take or renew it; return None, or who holds it."""
        began = time.monotonic()
        lease = self._cluster.lease()
        other = self._other(lease, began)
        if other is not None:
            return other
        try:
            self._cluster.write_lease(self._of(lease, self._holder))
        except ConflictError:
            return "somebody who was faster"
        self._renewed_at = began
        return None

    def give_back(self) -> None:
        """Let the next one have it at once."""
        lease = self._cluster.lease()
        if self.held and lease is not None:
            self._renewed_at = float("-inf")
            self._cluster.write_lease(self._of(lease, ""))

    def _other(self, lease: Object | None, now: float) -> str | None:
        """Return who else holds it, None where nobody does, or where whoever did has not renewed it for long enough."""
        spec: dict[str, Any] = (lease or {}).get("spec") or {}
        holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
        if holder in ("", self._holder):
            return None
        if (holder, renewed) != (self._sight.holder, self._sight.renewed):
            self._sight = _Sight(holder, renewed, now)
        return holder if now - self._sight.at < DURATION_S else None

    def _of(self, lease: Object | None, holder: str) -> Object:
        metadata = {"name": LEASE, "labels": PART_OF}
        if lease is not None:
            metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {
            "metadata": metadata,
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": DURATION_S, "renewTime": now},
        }
