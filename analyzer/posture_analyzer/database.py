"""The table of results: rows by key, and rows inserted once however often they come."""

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from posture_common.service import LastingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

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

    @property
    def key(self) -> Key:
        """What makes the row unique."""
        return self.pi_id, self.image_id

    def to_json(self) -> str:
        """Return the row as the result message that dashboards and publishers read."""
        return json.dumps(dataclasses.asdict(self), default=datetime.isoformat)


_TYPES = {"landmarks_detected": "boolean"} | dict.fromkeys(
    ("captured_time", "received_time", "analyzed_time"), "timestamptz"
) | dict.fromkeys(("neck_angle", "body_angle", "inference_ms", "uncertainty"), "float8")  # fmt: skip
_COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_CASTS = {name: f"{name}::{_TYPES.get(name, 'text')}" for name in _COLUMNS}  # a lab's own table may have other types
_SELECT = f"SELECT {', '.join(_CASTS.values())} FROM posture_results"  # noqa: S608  (names of our own)
_ROWS = f"{_SELECT} JOIN unnest(%s::text[], %s::text[]) AS wanted (pi_id, image_id) USING (pi_id, image_id)"
_INSERT = f"""
    INSERT INTO posture_results ({", ".join(_COLUMNS)})
    SELECT * FROM unnest({", ".join(f"%s::{_TYPES.get(name, 'text')}[]" for name in _COLUMNS)})
    ON CONFLICT (pi_id, image_id) DO NOTHING
    RETURNING pi_id, image_id
"""  # noqa: S608  (names of our own)

_LASTING_CONNECT_ERRORS = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "certificate",
    "does not support SSL",
    "connection is bad: invalid ",  # libpq on a value in the URL: sslmode, port, ...
)
_MIGRATE = "apply roles/database/files/migrations, as the role database does"
_REMEDIES: dict[type[psycopg.Error], str] = {
    psycopg.errors.UndefinedTable: _MIGRATE,
    psycopg.errors.UndefinedColumn: _MIGRATE,
    psycopg.errors.InvalidColumnReference: _MIGRATE,  # The unique index is missing.
    psycopg.errors.InsufficientPrivilege: "GRANT SELECT, INSERT ON posture_results to the user",
}
"""What to do about those errors of a statement, none of which waiting cures."""


_STATEMENT_TIMEOUT = b"SET statement_timeout = '20s'"


class DatabaseUnavailableError(Exception):
    """The database does not answer now; trying again later may help."""


class Database:
    """A connection to the database that is opened when it is needed; for one thread.

    Its methods raise:
        DatabaseUnavailableError: it does not answer; the next call connects anew.
        LastingError: it refuses us, or the table is not as it must be.
    """

    def __init__(self, conninfo: str) -> None:
        # A peer that vanished without a word is noticed in 10 s, not in the kernel's 15 minutes.
        self._conninfo = make_conninfo(
            conninfo,
            connect_timeout=5,
            tcp_user_timeout=10_000,
            keepalives_idle=10,
            application_name="posture-analyzer",
        )
        self._connection: psycopg.Connection[Any] | None = None

    def __str__(self) -> str:
        target = conninfo_to_dict(self._conninfo)
        host, port = target.get("host", "localhost"), target.get("port", 5432)
        return f"database {target.get('dbname')} at {host}:{port} as user {target.get('user')}"

    def check(self) -> None:
        """Raise unless rows can be read and inserted."""
        self.rows([])
        self.insert([])

    def rows(self, keys: Collection[Key]) -> dict[Key, Row]:
        """Return the rows that are there already, of those wanted."""
        found = self._run(_ROWS, _by_column(keys, width=2))
        rows = [Row(**dict(zip(_COLUMNS, values, strict=True))) for values in found]
        return {row.key: row for row in rows}

    def insert(self, rows: Sequence[Row]) -> set[Key]:
        """Insert and commit the rows; return the keys of those that were not there yet."""
        return set(self._run(_INSERT, _by_column([dataclasses.astuple(row) for row in rows], width=len(_COLUMNS))))

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, statement: str, values: list[list[Any]]) -> list[tuple[Any, ...]]:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection.execute(statement.encode(), values).fetchall()
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError) as error:
            self.close()
            remedy = _REMEDIES.get(type(error), "compare the table with roles/database/files/migrations")
            raise LastingError(f"{self}: {_first_line(error)}; {remedy}") from None
        except psycopg.Error as error:
            self.close()
            raise DatabaseUnavailableError(f"{self}: {_first_line(error)}") from None

    def _connect(self) -> "psycopg.Connection[Any]":
        try:
            # One statement is one transaction. No server-side prepared statements: Supabase's pooler cannot keep them.
            connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as error:
            if any(words in str(error) for words in _LASTING_CONNECT_ERRORS):
                raise LastingError(f"{self} refuses us: {_first_line(error)}; correct the settings") from None
            raise
        # Not as a start-up option: poolers refuse those. A locked table must not hold us for ever.
        connection.execute(_STATEMENT_TIMEOUT)
        return connection


def _by_column(rows: Collection[tuple[Any, ...]], *, width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0]
