"""From messages to committed rows: the threads and queues of an analyzer.

    the caller of `take`        workers (one pose model each)       writer
    messages -> known rows? --> work, bounded --> analysis --> done, bounded --> picture, row, commit,
                    |                                                            acknowledge, result message
                    `-- yes: acknowledge, result message

An image is acknowledged after the commit of its row, never before. Whatever happens in between, the broker still has
it and sends it again, and the row's unique key keeps the repeat from counting twice.
"""

import dataclasses
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from posture_common import disk
from posture_common.log_lines import about
from posture_common.mqtt import Connection, Message, PublishRefusedError
from posture_common.service import FailedError, LastingError, Stop, delays
from posture_common.settings import ANY_PI
from posture_common.times import frame_began

from . import gallery, intake, metrics
from .analysis import Analysis, Analyst, undecodable
from .connecting import DatabaseUnavailableError
from .database import Database, Key, Row
from .dead_letters import DeadLetters, DeadLettersFullError, ShareUsedUpError
from .hanging import Hanging
from .intake import Work
from .patience import Patience
from .refusals import Refusal, RowRefusedError
from .settings import AnalyzerSettings
from .trial import Trial

log = logging.getLogger(__name__)
T = TypeVar("T")

LARGEST_BATCH = 32
DRAIN_TIMEOUT_S = 20.0
HUNG_AFTER_S = 60.0


class DiskLowError(Exception):
    """The disk of the pictures has less free space than it has to keep."""


class StoppedError(Exception):
    """The stop was requested before the disk or the database worked again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """Analysed work on its way to the writer."""

    work: Work
    analysis: Analysis
    analyzed_time: datetime


class Pipeline:
    """The analyzer's threads, running while the `with` block runs.

    Leaving the block drains it: images in work are committed and acknowledged, those not begun stay with the broker.
    A thread that fails requests the stop; leaving the block then raises what it failed with.
    """

    def __init__(self, settings: AnalyzerSettings, stop: Stop, trial: Trial) -> None:
        self._settings = settings
        self._stop = stop
        self._trial = trial
        self._known = Database(settings.conninfo, probe_pi_id=settings.probe_pi_id)
        self._dead_letters = DeadLetters(settings.images_dir, shared=settings.stream == ANY_PI)
        self._work: queue.Queue[Work | None] = queue.Queue(maxsize=4 * settings.workers)
        self._done: queue.Queue[Done | None] = queue.Queue(maxsize=LARGEST_BATCH)
        self._in_work: dict[Key, Work] = {}
        metrics.IN_WORK.set_function(lambda: len(self._in_work))
        metrics.DISK_FREE.set_function(lambda: room.free if (room := self._room()) else math.nan)
        metrics.DISK_FLOOR.set_function(lambda: room.floor if (room := self._room()) else math.nan)
        self._lock = threading.Lock()
        self._underway: set[Key] = set()
        self._settled = threading.Condition(self._lock)
        self._patience = Patience()
        self._hanging = Hanging()
        self._connection: Connection | None = None
        self._failure: BaseException | None = None
        self._drained_by: float | None = None
        self._troubles: dict[str, str] = {}
        self._begun: dict[str, float] = {}
        self._warm = threading.Semaphore(0)
        self._workers = [self._thread(f"worker-{number}", self._analyse) for number in range(settings.workers)]
        self._writer = self._thread("writer", self._write)

    def __enter__(self) -> Self:
        for thread in (*self._workers, self._writer):
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.request()
        self.drain()
        self._known.close()
        if self._failure is not None and error is None:
            raise self._failure
        if self.died and error is None:
            raise FailedError("a worker hangs at an image: it is left, and the broker sends the image again")

    def warm_up(self) -> None:
        """Wait until each worker has its pose model and the database has shown its table, or the stop is requested."""
        with self._stop.calling(lambda: self._warm.release(self._settings.workers)):
            for _ in self._workers:
                self._warm.acquire()
        with suppress(StoppedError):
            self._retry(self._check_table)
            self._retry(self._check_disk)
        if (note := self._dead_letters.note()) is not None:
            log.warning("%s", note)

    def take(self, messages: Sequence[Message], connection: Connection) -> None:
        """Take messages of this connection in; return when each is in work or answered, or the stop is requested."""
        if connection is not self._connection:
            self._connection = connection
            self._forget_acknowledgements()
        works = [work for work in map(self._read, messages) if work is not None and not self._join(work)]
        with suppress(StoppedError):
            self._retry(self._check_disk)
            rows = self._retry(lambda: self._known.rows([work.key for work in works])) if works else {}
            for work in works:
                row, letter = rows.get(work.key), self._dead_letters.find(work.key)
                if row is None and letter is None:
                    self._begin(work)
                    continue
                metrics.REPEATED.labels(work.pi_id).inc()
                if row is not None:
                    self._settle(work, row)
                elif letter is not None:
                    self._settle(work, letter.row, refused=letter.reason)

    def drain(self) -> None:
        """Finish, commit and acknowledge the images in work; what is not begun stays with the broker."""
        with suppress(queue.Empty):
            while True:
                self._work.get_nowait()
        for _ in self._workers:
            with suppress(queue.Full):
                self._work.put_nowait(None)
        deadline = self._drained_by = self._drained_by or time.monotonic() + DRAIN_TIMEOUT_S
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        with suppress(queue.Full):
            self._done.put(None, timeout=max(0.0, deadline - time.monotonic()))
        self._writer.join(max(0.0, deadline - time.monotonic()))
        if self._writer.is_alive():
            log.warning("stopping with images in work: the broker keeps them and sends them again")

    def alive(self) -> str | None:
        """Say which thread failed or hangs, or None."""
        now = time.monotonic()
        for worker, begun in tuple(self._begun.items()):
            if now - begun > HUNG_AFTER_S:
                return f"{worker} has been at one image for {now - begun:.0f} s"
        return None if self._failure is None else str(self._failure)

    @property
    def died(self) -> bool:
        """Whether a thread failed or hangs, perhaps of an image in work, and not of what a person has to mend."""
        failed = self._failure is not None and not isinstance(self._failure, LastingError)
        return failed or any(worker.is_alive() for worker in self._workers)

    def trouble(self) -> str | None:
        """Say what keeps rows from being committed at the moment, or None."""
        # Also before an image comes: nobody should have to send one to learn that there is no room for it.
        room = self._room()
        troubles = [trouble for trouble in tuple(self._troubles.values()) if not room or trouble != room.shortage]
        return "; ".join([*troubles, *([str(room)] if room and room.lacks() else [])]) or None

    def note(self) -> str | None:
        """Say which rows wait for a person, though all is well; None where there are none."""
        return self._dead_letters.note()

    def _check_disk(self) -> None:
        room = self._room()
        if room and room.lacks():
            raise DiskLowError(room.shortage)

    def _room(self) -> disk.Room | None:
        with suppress(OSError):  # Whoever writes there next says why it cannot be asked.
            return disk.room(self._settings.images_dir, self._settings.disk_floor)
        return None

    def _check_table(self) -> None:
        try:
            self._known.check()
        except RowRefusedError as error:
            # It may be right for some images, and no row of the others is lost.
            log.warning("%s; rows that are refused are kept in %s", error, self._dead_letters.directory)

    def _read(self, message: Message) -> Work | None:
        try:
            return intake.read(message, received_time=datetime.now(UTC), max_bytes=self._settings.max_image_bytes)
        except intake.ForeignTopicError as error:
            log.warning("ignored a message: %s", error)
            metrics.IGNORED.inc()
            message.acknowledge()
            return None

    def _join(self, work: Work) -> bool:
        """Let the work wait for an equal one that is in work already (True), or be the first itself (False)."""
        with self._lock:
            first = self._in_work.setdefault(work.key, work)
            if first is work:
                return False
            first.acknowledgements.extend(work.acknowledgements)
            return True

    def _forget_acknowledgements(self) -> None:
        """Let go of those of an earlier connection: the broker sends the images again on this one."""
        with self._lock:
            for work in self._in_work.values():
                work.acknowledgements.clear()

    def _begin(self, work: Work) -> None:
        if self._trial.ended_twice(work.key):
            work.problem = "two analyzers ended while they were at this image"
            self._enqueue(work)
            self._await_settled(work)
        elif self._trial.suspects(redelivered=work.redelivered):
            self._await_settled()
            self._trial.try_alone(work.key)
            self._enqueue(work)
            self._await_settled(work)
        else:
            self._enqueue(work)

    def _enqueue(self, work: Work) -> None:
        with self._lock:
            self._underway.add(work.key)
        while not self._stop.requested:
            with suppress(queue.Full):
                self._work.put(work, timeout=1)
                return

    def _await_settled(self, work: Work | None = None) -> None:
        """Wait until the work has its row, or all that is under way has; or until the stop is requested."""

        def settled() -> bool:
            return self._stop.requested or (work.key not in self._underway if work else not self._underway)

        with self._stop.calling(self._wake), self._settled:
            self._settled.wait_for(settled)
        if work is not None and work.key not in self._underway:
            self._trial.settled(work.key)

    def _wake(self) -> None:
        with self._settled:
            self._settled.notify_all()

    def _analyse(self) -> None:
        """What a worker does."""
        name = threading.current_thread().name
        with Analyst(self._settings) as analyst:
            self._warm.release()
            while (work := self._work.get()) is not None:
                self._begun[name] = time.monotonic()
                analysis = self._analysis(analyst, work)
                del self._begun[name]
                if analysis.problem is not None:
                    what = work.filename or work.image_id, work.pi_id, analysis.problem
                    log.warning("image %s of %s: %s", *what, extra=about(work.pi_id))
                self._done.put(Done(work, analysis, datetime.now(UTC)))

    def _analysis(self, analyst: Analyst, work: Work) -> Analysis:
        if work.problem is not None:
            return undecodable(work.problem)
        cpu_s = self._patience.limit_s(work.pi_id, size=len(work.image), now=time.monotonic())
        analysis = analyst.analyse(work.image, rotate=work.rotate, cpu_s=cpu_s, camera=work.pi_id)
        if analysis.ended:
            metrics.ENDED.labels(work.pi_id).inc()
            self._patience.wasted(work.pi_id, cpu_s, now=time.monotonic())
        return analysis

    def _write(self) -> None:
        """What the writer does."""
        database = Database(self._settings.conninfo, probe_pi_id=self._settings.probe_pi_id)
        while batch := self._next_batch():
            with suppress(StoppedError):
                self._retry(partial(self._save, batch))
                for done, refusal in self._retry(partial(self._commit, batch, database)):
                    self._retry(partial(self._set_aside, done, refusal))
        database.close()

    def _next_batch(self) -> list[Done]:
        """Wait for analysed work and return all there is, up to `LARGEST_BATCH`; empty at the end."""
        batch: list[Done] = []
        done = self._done.get()
        with suppress(queue.Empty):
            while done is not None:
                batch.append(done)
                if len(batch) == LARGEST_BATCH:
                    return batch
                done = self._done.get_nowait()
            if batch:
                self._done.put(None)  # The end comes after this batch.
        return batch

    def _save(self, batch: Sequence[Done]) -> None:
        paths = []
        for done in batch:
            work = done.work
            if done.analysis.annotated is not None:
                path = gallery.picture_path(
                    self._settings.images_dir, pi_id=work.pi_id, filename=work.filename, key=work.image_id
                )
                gallery.save(path, done.analysis.annotated)
                paths.append(path)
        gallery.flush_names(paths)

    def _commit(self, batch: Sequence[Done], database: Database) -> list[tuple[Done, Refusal]]:
        """Commit and settle the rows that the database takes; return those that it refuses."""
        rows = {done.work.key: self._row(done) for done in batch}
        inserted = database.insert(list(rows.values()))
        for done in batch:
            key = done.work.key
            if key in inserted.new:
                _count(rows[key], done.analysis)
                if (hint := self._hanging.add(done.work.pi_id, rows[key].body_angle)) is not None:
                    log.warning("%s", hint)
            if key not in inserted.refused:
                self._settle(done.work, inserted.standing.get(key, rows[key]))
        return [(done, inserted.refused[done.work.key]) for done in batch if done.work.key in inserted.refused]

    def _set_aside(self, done: Done, refusal: Refusal) -> None:
        """Keep the row that the database refuses for `posture-analyzer retry`, and settle its image."""
        work, row = done.work, self._row(done)
        try:
            kept = self._dead_letters.put(row, refusal)
        except ShareUsedUpError as error:
            metrics.REFUSED.labels(work.pi_id).inc()
            what = work.filename or work.image_id, work.pi_id, error
            log.error("image %s of %s: its row is given up: %s", *what, extra=about(work.pi_id))  # noqa: TRY400
            self._settle(work, row, refused=str(refusal))
            return
        if kept:
            metrics.REFUSED.labels(work.pi_id).inc()
            log.warning(
                "image %s of %s: the database refuses its row: %s; it is kept as %s, for posture-analyzer retry",
                work.filename or work.image_id,
                work.pi_id,
                refusal,
                self._dead_letters.path(row.key),
                extra=about(work.pi_id),
            )
        self._settle(work, row, refused=str(refusal))

    def _row(self, done: Done) -> Row:
        work, posture, inference_ms = done.work, done.analysis.posture, done.analysis.inference_ms
        return Row(
            pi_id=work.pi_id,
            image_id=work.image_id,
            filename=work.filename,
            captured_time=work.captured_time,
            clock_suspect=work.clock_suspect,
            received_time=work.received_time,
            analyzed_time=done.analyzed_time,
            neck_angle=_rounded(posture.neck_angle),
            body_angle=_rounded(posture.body_angle),
            posture_status=posture.posture_status,
            landmarks_detected=posture.landmarks_detected,
            processed_by=self._settings.node,
            stream=self._settings.stream,
            inference_ms=_rounded(inference_ms),
            uncertainty=_rounded(posture.uncertainty),
            confidence=posture.confidence,
        )

    def _settle(self, work: Work, row: Row, *, refused: str | None = None) -> None:
        """Acknowledge everything that waits for the row, and tell whoever listens.

        The row is committed, or a dead letter and `refused` says why: either way its Pi need not keep the image.
        """
        with self._settled:
            del self._in_work[work.key]
            self._underway.discard(work.key)
            self._settled.notify_all()
        for acknowledge in work.acknowledgements:
            acknowledge()
        if self._connection is not None:
            # Where the connection is gone the result is too: the publisher asks again and is answered from the row.
            self._connection.publish(f"posture/results/{row.pi_id}", row.to_json(refused=refused)).add_done_callback(
                _log_refusal
            )

    def _retry(self, action: Callable[[], T]) -> T:
        """Try until the disk and the database play along; raise `StoppedError` where the stop comes first."""
        thread = threading.current_thread().name
        for delay in delays():
            try:
                result = action()
            except (DatabaseUnavailableError, DeadLettersFullError, DiskLowError, OSError) as error:
                trouble = _explain(error)
                if self._troubles.get(thread) != trouble:
                    log.warning("%s; trying again until it works, no image is lost", trouble)
                self._troubles[thread] = trouble
            else:
                if self._troubles.pop(thread, None) is not None:
                    log.info("works again")
                return result
            if self._stop.wait(delay):
                break
        raise StoppedError

    def _thread(self, name: str, run: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                run()
            except Exception as error:  # Whatever it is, main must learn of it and end the program.
                if not isinstance(error, LastingError | FailedError):
                    log.exception("%s failed", name)
                self._failure = self._failure or error
                self._stop.request()

        return threading.Thread(target=guarded, name=name, daemon=True)


def _count(row: Row, analysis: Analysis) -> None:
    metrics.IMAGES.labels(row.pi_id, row.posture_status).inc()
    began = frame_began(captured=row.captured_time, received=row.received_time, clock_suspect=row.clock_suspect)
    metrics.FRAME_AGE.observe(max(0.0, (datetime.now(UTC) - began).total_seconds()))
    if analysis.withheld is not None:
        metrics.WITHHELD.labels(row.pi_id, analysis.withheld.reason).inc()
    if analysis.inference_ms is not None:
        metrics.INFERENCE.observe(analysis.inference_ms / 1e3)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 2)


def _explain(error: DatabaseUnavailableError | DeadLettersFullError | DiskLowError | OSError) -> str:
    if isinstance(error, OSError):
        return f"cannot write {error.filename or 'the annotated picture'}: {error.strerror}"
    return str(error)


def _log_refusal(published: Future[bool]) -> None:
    error = published.exception()
    if isinstance(error, PublishRefusedError):
        log.warning("result message: %s; check the broker's access list", error)
