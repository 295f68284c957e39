"""The running offloader: hold the Lease, look, follow, say how it stands; until the stop."""

import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress

from posture_common.mqtt import Broker, ConnectionLostError
from posture_common.service import LastingError, Stop, status_server

from . import metrics, report
from .board import Board
from .cluster import Cluster, ClusterError, ConflictError
from .controller import Controller
from .lease import Lease
from .settings import OffloaderSettings

log = logging.getLogger(__name__)

UNSETTLED_S = 0.5
"""How soon to look again while a stream is on its way: Kubernetes does not tell when a Job fails."""
HUNG_AFTER_S = 60.0


class Offloader:
    """The offloader of one namespace."""

    def __init__(self, settings: OffloaderSettings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._wake = threading.Event()
        self._cluster = Cluster(settings.namespace)
        began = time.time() - time.monotonic()

        def clock() -> float:
            """Return seconds since 1970, by a clock that does not go back while the program runs."""
            return began + time.monotonic()

        self._board = Board(Broker.of(settings), stop, changed=self._wake.set, clock=clock)
        # In a pod that is its name and 1: the container that is started again in it need not wait for the former one.
        self._lease = Lease(self._cluster, f"{socket.gethostname()}-{os.getpid()}")
        self._controller = Controller(settings, self._cluster, self._board, clock=clock)
        self._problem: str | None = "starting"
        self._looked_at = time.monotonic()

    def run(self) -> None:
        """Keep the streams where they belong until the stop is requested.

        Raises:
            LastingError: only a person can help: no cluster is known, a password is refused, a port is in use.
        """
        settings, stop = self._settings, self._stop
        server = status_server(settings.http_host, settings.http_port, alive=self._alive, ready=lambda: self._problem)
        with server, stop.calling(self._wake.set):
            # The board comes after it: its connection would end that of the one who holds the Lease.
            self._await_lease()
            if not stop.requested:
                with self._board:
                    self._lead()
        if self._board.failure is not None:
            raise self._board.failure

    def _await_lease(self) -> None:
        """Return when the Lease is ours, or the stop is requested."""
        while not self._stop.requested:
            try:
                holder = self._lease.take()
                problem = holder and f"{holder} holds the Lease: waiting until it stops"
            except ClusterError as error:
                problem = str(error)
            self._say(problem)
            self._looked_at = time.monotonic()
            if problem is None:
                return
            self._stop.wait(self._settings.tick)

    def _lead(self) -> None:
        """Look and follow until the stop is requested, then give the Lease back."""
        tick, next_look = self._settings.tick, 0.0
        while not self._stop.requested:
            self._wake.clear()
            began = time.monotonic()
            due = began >= next_look
            if due:
                next_look = began + tick
            with metrics.LOOK_SECONDS.time():
                self._say(self._work(look=due))
            self._looked_at = time.monotonic()
            longest = UNSETTLED_S if self._controller.unsettled else tick
            self._wake.wait(max(0.0, min(next_look - time.monotonic(), longest)))
        with suppress(ClusterError):
            self._lease.give_back()

    def _work(self, *, look: bool) -> str | None:
        """Look and follow once; return what keeps us from it."""
        try:
            if look and (holder := self._lease.take()) is not None:
                self._stop.request()
                return f"{holder} has taken the Lease, which was not renewed in time: stopping"
            if not self._lease.held:
                return "the Lease could not be renewed in time: nothing moves until it is"
            if self._board.synced_since is None:
                return self._board.trouble
            if look:
                self._controller.look()
            else:
                self._controller.see_jobs()
            if self._controller.picture.wanted or not self._settings.streams:
                self._controller.follow()
        except ConflictError as error:
            log.debug("%s: read anew at the next look", error)  # a person asked for a move, for example
        except (ClusterError, ConnectionLostError, LastingError) as error:
            return str(error)
        return None

    def _say(self, problem: str | None) -> None:
        if problem != self._problem:
            if problem is not None:
                log.warning("%s", problem)
            else:
                log.info("looking after %s", ", ".join(self._settings.streams) or "no stream")
        self._problem = problem
        metrics.LEADING.set(self._lease.held)
        if self._board.synced_since is not None:
            self._board.show(json.dumps(report.status(self._controller, self._board, problem)))

    def _alive(self) -> str | None:
        since = time.monotonic() - self._looked_at
        return f"the last look began {since:.0f} s ago" if since > HUNG_AFTER_S else None
