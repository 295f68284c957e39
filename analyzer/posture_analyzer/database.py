"""The table of results: rows by key, and rows inserted once however often they come."""

import dataclasses
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import psycopg
from posture_common.service import LastingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from .connecting import CONNECT_TIMEOUT_S, Connector, DatabaseUnavailableError, first_line
from .refusals import (
    COMPARE,
    FAILED_CLASSES,
    GRANTS,
    KEY_COLUMNS,
    LASTING_CLASSES,
    PASSING_CLASSES,
    REMEDIES,
    SLOW,
    TABLES,
    Refusal,
    RowRefusedError,
    ServerFailedError,
    TableRefusedError,
    refusal_of,
    remedy_of_rights,
    remedy_of_tables,
    short,
)

Key = tuple[str, str]
"""pi_id and image_id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of posture_results; docs/data.md says what each column holds. Angles in degrees."""

    pi_id: str
    image_id: str
    filename: str | None
    captured_time: datetime | None
    received_time: datetime
    analyzed_time: datetime
    neck_angle: float | None
    body_angle: float | None
    posture_status: str
    landmarks_detected: bool
    processed_by: str
    stream: str
    inference_ms: float | None
    uncertainty: float | None
    confidence: str | None
    clock_suspect: bool = False

    @property
    def key(self) -> Key:
        """What makes the row unique."""
        return self.pi_id, self.image_id

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON has it: times are RFC 3339 text."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the row of which `as_dict` made the values.

        Raises:
            KeyError, TypeError, ValueError: they are not those of a row.
        """
        times = {name: datetime.fromisoformat(values[name]) for name in _TIMES if values[name] is not None}
        row = cls(**{**values, **times})
        if not all(isinstance(part, str) for part in row.key):
            raise TypeError("pi_id and image_id must be texts")
        return row

    def to_json(self, *, refused: str | None = None) -> str:
        """Return the row as the result message that dashboards and publishers read.

        `refused` says why the database did not take it; a row that is in the table has no such key.
        """
        return json.dumps(self.as_dict() | ({} if refused is None else {"refused": refused}))


_TIMES = ("captured_time", "received_time", "analyzed_time")
_TYPES = (
    dict.fromkeys(("landmarks_detected", "clock_suspect"), "boolean")
    | dict.fromkeys(_TIMES, "timestamptz")
    | dict.fromkeys(("neck_angle", "body_angle", "inference_ms", "uncertainty"), "float8")
)
_COLUMNS = tuple(column.name for column in dataclasses.fields(Row))
_CASTS = {name: f"{name}::{_TYPES.get(name, 'text')}" for name in _COLUMNS}  # a lab's own table may have other types
_SELECT = f"SELECT {', '.join(_CASTS.values())} FROM posture_results"  # noqa: S608  (names of our own)
_ROWS = f"{_SELECT} JOIN unnest(%s::text[], %s::text[]) AS wanted (pi_id, image_id) USING (pi_id, image_id)"
_INSERT = f"""
    INSERT INTO posture_results ({", ".join(_COLUMNS)})
    SELECT * FROM unnest({", ".join(f"%s::{_TYPES.get(name, 'text')}[]" for name in _COLUMNS)})
    ON CONFLICT (pi_id, image_id) DO NOTHING
    RETURNING pi_id, image_id
"""  # noqa: S608  (names of our own)

STATEMENT_TIMEOUT_S = 20.0
LOCK_TIMEOUT = 0.9
"""A slow statement or a locked table must not hold us for ever. The server sees to it. Waiting for a lock ends in a
part of that time, and so with a state of its own.
"""
ANSWER_TIMEOUT_S = 25.0
WATCH_S = 0.5
"""Nor must a pooler that has no connection for the statement. We see to that."""
_VANISHED = "the database drops the row without a word; look for a trigger or a rule on posture_results that does"


@dataclass(slots=True)
class Inserted:
    """What became of rows: each is new in the table, stood there before (as given here), or was refused."""

    new: set[Key] = field(default_factory=set)
    standing: dict[Key, Row] = field(default_factory=dict)
    refused: dict[Key, Refusal] = field(default_factory=dict)

    def add(self, other: "Inserted") -> None:
        """Take what became of further rows in."""
        self.new |= other.new
        self.standing |= other.standing
        self.refused |= other.refused


class Database:
    """A connection to the database that is opened when it is needed; for one thread.

    Args:
        conninfo: the database as libpq takes it.
        probe_pi_id: the Pi that the row of `check` is from; it is never committed.

    Its methods raise:
        DatabaseUnavailableError: it does not answer; the next call connects anew.
        LastingError: it refuses us, or the table is not as it must be.
    """

    def __init__(self, conninfo: str, *, probe_pi_id: str = "posture-check") -> None:
        # A peer that vanished without a word is noticed in 10 s, not in the kernel's 15 minutes.
        self._conninfo = make_conninfo(
            conninfo,
            connect_timeout=CONNECT_TIMEOUT_S,
            tcp_user_timeout=10_000,
            keepalives_idle=10,
            application_name="posture-analyzer",
            client_encoding="UTF8",
        )
        self._probe_pi_id = probe_pi_id
        self._connector = Connector(self._conninfo, str(self))
        self._connection: psycopg.Connection[Any] | None = None
        self._watch: _Watch | None = None

    def __str__(self) -> str:
        target = conninfo_to_dict(self._conninfo)
        host, port = target.get("host", "localhost"), target.get("port", 5432)
        user = target.get("user", "(this process's)")
        return f"database {target.get('dbname', user)} at {host}:{port} as user {user}"

    def check(self) -> None:
        """Insert a row as an image's, look at it and take it back.

        Raises:
            RowRefusedError: the table refuses such a row for what is in it.
        """
        [[(encoding,)]] = self._run("SHOW server_encoding", [])
        if encoding != "UTF8":
            raise LastingError(
                f"{self} has the encoding {encoding}, which cannot hold every file name: make another with "
                "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and set POSTURE_DATABASE_URL to it"
            )
        row = _probe(self._probe_pi_id)
        try:
            values = [*_by_column([dataclasses.astuple(row)]), *_by_column([row.key])]
            _, seen = self._run(f"{_INSERT}; {_ROWS}; SET CONSTRAINTS ALL IMMEDIATE", values, keep=False)
        except RowRefusedError as error:
            refusal = self._explained(row, error.refusal)
            remedy = (
                "give the column a default or let it be null" if refusal.state == "23502" else "let it take such a row"
            )
            message = f"{self}: the table posture_results refuses rows of images: {refusal}; {remedy}, or {COMPARE}"
            raise RowRefusedError(message, refusal) from None
        if not seen:
            raise LastingError(f"{self}: {_VANISHED}")

    def rows(self, keys: Collection[Key]) -> dict[Key, Row]:
        """Return the rows that are there already, of those wanted."""
        if not keys:
            return {}
        try:
            [found] = self._run(_ROWS, _by_column(keys))
        except RowRefusedError as error:
            raise LastingError(f"{self}: cannot read posture_results: {error.refusal}; {COMPARE}") from None
        rows = [Row(**dict(zip(_COLUMNS, values, strict=True))) for values in found]
        return {row.key: row for row in rows}

    def insert(self, rows: Sequence[Row]) -> Inserted:
        """Insert and commit the rows. Where the database refuses one that does not fit, all others go in."""
        if not rows:
            return Inserted()
        try:
            return self._insert(rows)
        except RowRefusedError as error:
            failure: RowRefusedError | TableRefusedError | ServerFailedError = error
        except (TableRefusedError, ServerFailedError) as error:
            # A policy or a trigger refuses a single row with the state of a whole table: then another row goes in.
            self._check_that_others_fit(error)
            failure = error
        if len(rows) == 1:
            return self._refused(rows[0], failure)
        outcome = Inserted()
        for row in rows:
            outcome.add(self.insert([row]))
        return outcome

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._watch is not None:
            self._watch.end()
            self._watch = None

    def _insert(self, rows: Sequence[Row]) -> Inserted:
        [returned] = self._run(_INSERT, _by_column([dataclasses.astuple(row) for row in rows]))
        new = set(returned)
        # Another analyzer, or our own commit whose answer was lost, may have been first: what stands counts.
        missing = {row.key for row in rows} - new
        standing = self.rows(missing)
        return Inserted(new, standing, {key: Refusal(reason=_VANISHED) for key in missing - standing.keys()})

    def _refused(self, row: Row, failure: RowRefusedError | TableRefusedError | ServerFailedError) -> Inserted:
        """Return what became of a row that failed alone, while others fit."""
        refused = failure.refusal
        if isinstance(failure, ServerFailedError):
            # A server that recovered meanwhile would have taken this one as well.
            try:
                return self._insert([row])
            except (RowRefusedError, ServerFailedError) as again:
                refused = again.refusal
        standing = self.rows([row.key])
        return Inserted(standing=standing) if standing else Inserted(refused={row.key: self._explained(row, refused)})

    def _check_that_others_fit(self, error: TableRefusedError | ServerFailedError) -> None:
        try:
            self.check()
        except RowRefusedError:
            raise error from None

    def _explained(self, row: Row, refusal: Refusal) -> Refusal:
        """Return the refusal with column and value, where they can be found out."""
        column = refusal.column
        if refusal.key is not None:
            [names] = self._run(KEY_COLUMNS, [[refusal.key], [refusal.key]])
            column = ", ".join(name for (name,) in names) or None
        elif column is None and refusal.state != SLOW:  # a slow row takes its time with each try
            column = self._culprit(row, refusal)
        value = None if column is None else getattr(row, column, None)
        return dataclasses.replace(refusal, column=column, value=None if value is None else short(repr(value)))

    def _culprit(self, row: Row, refusal: Refusal) -> str | None:
        """Return the column whose value is the reason, as PostgreSQL seldom does: with another one the row goes in."""
        values, perhaps = _by_column([dataclasses.astuple(row)]), None
        for others in (dataclasses.astuple(_probe(self._probe_pi_id)), [None] * len(_COLUMNS)):
            for number, (name, other) in enumerate(zip(_COLUMNS, others, strict=True)):
                if values[number] == [other]:
                    continue
                try:
                    self._run(_INSERT, [*values[:number], [other], *values[number + 1 :]], keep=False)
                except (RowRefusedError, TableRefusedError, ServerFailedError) as error:
                    if other is not None and error.refusal != refusal:
                        perhaps = perhaps or name  # It goes further, to what is wrong with the next column.
                else:
                    return name
        return perhaps

    def _run(self, statement: str, values: list[list[Any]], *, keep: bool = True) -> list[list[tuple[Any, ...]]]:
        """Run the statements in one transaction, which is kept or taken back; return the rows of each that has rows."""
        try:
            return self._transact(statement, values, keep=keep)
        except (psycopg.Error, UnicodeError) as error:
            raise self._translated(error) from None

    def _transact(self, statement: str, values: list[list[Any]], *, keep: bool) -> list[list[tuple[Any, ...]]]:
        if self._connection is None:
            self._connection = self._connector.connect()
        connection = self._connection
        watch = self._watch = self._watch or _Watch()
        # Not a setting of the session: behind a transaction pooler that is somebody else's a moment later, and theirs
        # ours. One message, so it costs no time on the way.
        timeout = STATEMENT_TIMEOUT_S * 1e3
        begin = (
            f"BEGIN; SET LOCAL statement_timeout = {timeout:.0f}; SET LOCAL lock_timeout = {timeout * LOCK_TIMEOUT:.0f}"
        )
        try:
            with watch.answering(connection):
                end = "COMMIT" if keep else "ROLLBACK"
                cursor = connection.execute(f"{begin}; {statement}; {end}".encode(), values)
            return [result.fetchall() for result in cursor.results() if result.description]
        finally:
            if connection.info.transaction_status == TransactionStatus.INERROR:
                connection.rollback()

    def _translated(self, error: psycopg.Error | UnicodeError) -> Exception:
        refusal = refusal_of(error)
        message = f"{self}: {first_line(error)}"
        if refusal.state is None and isinstance(error, psycopg.DataError | UnicodeError):
            return RowRefusedError(message, refusal)  # It cannot even be sent.
        kind = (refusal.state or "08")[:2]
        failed = kind in FAILED_CLASSES or refusal.state == SLOW
        if failed and self._connection is not None and not self._connection.broken:
            return ServerFailedError(message, refusal)
        if kind in PASSING_CLASSES:
            self.close()
            return DatabaseUnavailableError(message)
        if kind in LASTING_CLASSES:
            return TableRefusedError(f"{message}; {self._remedy(str(refusal.state))}", refusal)
        return RowRefusedError(message, refusal)

    def _remedy(self, state: str) -> str:
        try:
            if state == "42501":
                [found] = self._transact(GRANTS, [list(_COLUMNS)], keep=False)
                return remedy_of_rights(*found[0]) if found else "grant the user what is named"
            if state == "42P01":
                [found] = self._transact(TABLES, [], keep=False)
                return remedy_of_tables(found)
        except psycopg.Error:
            pass
        return REMEDIES.get(state, COMPARE)


class _Watch:
    """Cuts a connection off that was not answered in time. One thread that looks now and then: a timer for each
    statement would cost half a millisecond of each image.
    """

    def __init__(self) -> None:
        self._awaited: tuple[float, psycopg.Connection[Any]] | None = None
        self._late = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="database watch", daemon=True).start()

    def end(self) -> None:
        self._ended.set()

    @contextmanager
    def answering(self, connection: "psycopg.Connection[Any]") -> Iterator[None]:
        """Cut the connection off when what the block awaits of it is not there in time."""
        with self._lock:
            self._late = False
            self._awaited = time.monotonic() + ANSWER_TIMEOUT_S, connection
        try:
            yield
        except psycopg.OperationalError:
            if self._late:
                raise psycopg.OperationalError(f"no answer within {ANSWER_TIMEOUT_S:g} s") from None
            raise
        finally:
            with self._lock:
                self._awaited = None

    def _run(self) -> None:
        while not self._ended.wait(WATCH_S):
            with self._lock:
                awaited = self._awaited
                if awaited is None or time.monotonic() < awaited[0]:
                    continue
                self._late, self._awaited = True, None
            # The answer may come, and the connection be closed, at this very moment.
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(awaited[1].fileno())) as stream:
                stream.shutdown(socket.SHUT_RDWR)


def _probe(pi_id: str) -> Row:
    now = datetime.now(UTC)
    return Row(
        pi_id=pi_id,
        image_id=str(uuid.uuid4()),
        filename="posture-check.jpg",
        captured_time=now,
        received_time=now,
        analyzed_time=now,
        neck_angle=12.34,
        body_angle=5.67,
        posture_status="Good",
        landmarks_detected=True,
        processed_by="posture-check",
        stream=pi_id,
        inference_ms=45.67,
        uncertainty=1.23,
        confidence="sure",
    )


def _by_column(rows: Collection[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
