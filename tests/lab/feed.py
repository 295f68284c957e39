"""Pictures for the Pis' cameras without a pause, and what must have become of each: one row, one picture."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Self

from tests.lab.deployment import Deployment
from tests.lab.machine import CAMERA
from tests.support.waiting import wait_until

_PERIOD_S = 0.5
_SOURCE = "camera.jpg"
_SPOOL = "var/lib/posture/spool"
_ROWS = (
    "SELECT json_agg(json_build_array(pi_id, filename, processed_by, extract(epoch FROM analyzed_time))"
    " ORDER BY analyzed_time) FROM posture_results WHERE analyzed_time >= to_timestamp({since})"
)


@dataclass(frozen=True)
class Row:
    """A row as the feed looks at it; `at` is the time of its analysis, in seconds since 1970."""

    pi: str
    filename: str
    node: str
    at: float


@dataclass
class Feed:
    """Puts a new picture into each Pi's folder twice a second while the `with` block runs.

    `faults` says from when on what was done, to tell of an image that is missing what was done to it.
    """

    deployment: Deployment
    pis: tuple[str, ...]
    sent: dict[tuple[str, str], float] = field(default_factory=dict)  # (Pi, file name) -> seconds since 1970
    faults: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for pi, filename in self.sent:
            (self.deployment.lab.machine(pi).root / CAMERA / filename).unlink()

    def stop(self) -> None:
        """Put no more there."""
        self._ending.set()
        self._thread.join()

    def rows(self, since: float = 0) -> list[Row]:
        """Return the rows that were made since then, in their order."""
        found = self.deployment.query(_ROWS.format(since=since))
        return [Row(*each) for each in found or ()]

    def wait_for_rows(self, pis: Iterable[str], *, timeout: float = 30) -> None:
        """Return when an image that each Pi's camera gives from now on has its row."""
        began = time.time()

        def new() -> set[str]:
            return {row.pi for row in self.rows(began) if self.sent.get((row.pi, row.filename), 0) > began}

        wait_until(lambda: set(pis) <= new(), timeout=timeout, describe=lambda: f"new rows of {pis}", pause=0.3)

    def gap(self, pi: str, since: float) -> float:
        """Return the longest time without a row of a Pi since then, in seconds."""
        times = [row.at for row in self.rows() if row.pi == pi]
        return max((after - before for before, after in pairwise(times) if after > since), default=0)

    def settle(self, *, timeout: float) -> None:
        """Take no more pictures, and return when each is confirmed; raise where one is lost or twice there."""
        self.stop()
        spools = [self.deployment.lab.machine(pi).root / _SPOOL for pi in self.pis]
        wait_until(
            lambda: (
                self.sent.keys() <= {(row.pi, row.filename) for row in self.rows()}
                and not any(list(spool.rglob("*.image")) for spool in spools)
            ),
            timeout=timeout,
            describe=lambda: f"each image has its row; without one: {self._lost()}",
            pause=0.5,
        )
        counted = Counter((row.pi, row.filename) for row in self.rows())
        twice = {image: count for image, count in counted.items() if count > 1}
        assert not twice, self._told(twice)

    def _lost(self) -> str:
        return self._told(self.sent.keys() - {(row.pi, row.filename) for row in self.rows()})

    def _told(self, images: Iterable[tuple[str, str]]) -> str:
        """Name images with what was going on when they were taken."""
        told = {}
        for image in sorted(images):
            before = [(at, what) for at, what in self.faults if at <= self.sent.get(image, 0)]
            at, what = before[-1] if before else (self.sent.get(image, 0), "the beginning")
            told[" ".join(image)] = f"{self.sent.get(image, 0) - at:.1f} s after {what}"
        return json.dumps(told, indent=1)

    def _run(self) -> None:
        number = 0
        while not self._ending.wait(_PERIOD_S):
            number += 1
            for pi in self.pis:
                folder = self.deployment.lab.machine(pi).root / CAMERA
                filename = f"{pi}-{number:05}.jpg"
                (folder / filename).hardlink_to(folder / _SOURCE)
                self.sent[pi, filename] = time.time()
