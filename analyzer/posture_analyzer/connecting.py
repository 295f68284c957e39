"""Connects to the database, and tells what a person must mend from what passes.

A server says it by the SQLSTATE of its refusal, in whatever language its words are. libpq keeps the state of a refused
connection to itself, but its trace of the protocol has it: a refused connection is tried once more with the trace on.
What libpq itself refuses has no state, and its words are never translated: nobody sets this process's LC_MESSAGES.
"""

import os
import re
import select
import time
from typing import Any

import psycopg
from posture_common.service import LastingError
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

CONNECT_TIMEOUT_S = 5
_LASTING_CLASSES = frozenset({"0A", "22", "28", "3D", "42"})
"""Of SQLSTATE: not supported, wrong value, not let in, no such database, no right or no such parameter."""
_LASTING_WORDS_OF_LIBPQ = (
    "connection is bad: invalid ",  # a value in the URL: sslmode, port, ...
    "does not support SSL",
    "certificate file",
    "private key file",
    "authentication method requirement",
)
_POOLERS_STATE = "08P01"
_LASTING_WORDS_OF_POOLERS = (
    "password authentication failed",
    "SASL authentication failed",
    "auth failed",
    "no such user",
    "no such database",
    "unsupported startup parameter",
)
"""pgbouncer has one state for nearly all that it says about a client that it does not let in, in English."""
_NO_TENANT = re.compile(r"tenant(?: or |/)user .*not found", re.IGNORECASE)
_STATE = re.compile(rb'^B\t\d+\tErrorResponse\t.*? C "([0-9A-Z]{5})"', re.MULTILINE)


class DatabaseUnavailableError(Exception):
    """The database does not answer now; trying again later may help."""


class Connector:
    """Opens connections to one database, which messages call by its name."""

    def __init__(self, conninfo: str, name: str) -> None:
        self._conninfo = conninfo
        self._name = name
        self._last_refusal = ("", "")  # its words and its state

    def connect(self) -> "psycopg.Connection[Any]":
        """Connect.

        Raises:
            DatabaseUnavailableError: the database does not answer, or does not let us in for now.
            LastingError: it refuses us.
        """
        try:
            # No prepared statements, and statements as text, several in a message: any pooler can pass that on.
            return psycopg.connect(
                self._conninfo, autocommit=True, prepare_threshold=None, cursor_factory=psycopg.ClientCursor[Any]
            )
        except psycopg.OperationalError as error:
            raise self._explained(error) from None

    def _explained(self, error: psycopg.OperationalError) -> Exception:
        said, state = first_line(error), self._state(error)
        settings = conninfo_to_dict(self._conninfo)
        if _NO_TENANT.search(said):
            # With a reference it may be a project that is paused.
            kind = DatabaseUnavailableError if "." in str(settings.get("user")) else LastingError
            return kind(
                f"{self._name}: {said}; Supabase's pooler knows users as postgres.<project reference>: "
                "set SUPABASE_USER (or the user in POSTURE_DATABASE_URL) to that, and resume a paused project"
            )
        if _is_lasting(error, state):
            return LastingError(f"{self._name} refuses us: {said}; correct the settings")
        if state is None and "certificate" in said:
            # Not for good: a machine's clock may be years behind until the network has told it the time.
            return DatabaseUnavailableError(
                f"{self._name} shows a certificate that is not to be trusted: {said}; "
                f"its authority must be in {settings.get('sslrootcert') or '~/.postgresql/root.crt'} "
                "(POSTURE_DATABASE_CA_FILE), its names must fit, and the clock of this machine must be right; "
                "where it has expired, run up, which renews it"
            )
        return DatabaseUnavailableError(f"{self._name}: {said}")

    def _state(self, error: psycopg.OperationalError) -> str | None:
        if isinstance(error, psycopg.errors.ConnectionTimeout):
            return None
        words, known = self._last_refusal
        if words == str(error):
            return known
        state = refusal_state(self._conninfo)
        if state is not None:
            # libpq keeps 5 KB for each trace. While a server says the same, it is not asked again.
            self._last_refusal = (str(error), state)
        return state


def _is_lasting(error: psycopg.OperationalError, state: str | None) -> bool:
    said = str(error)
    if state is None:
        without_password = error.pgconn is not None and error.pgconn.needs_password
        return without_password or any(words in said for words in _LASTING_WORDS_OF_LIBPQ)
    if state == _POOLERS_STATE:
        return any(words in said for words in _LASTING_WORDS_OF_POOLERS)
    return state[:2] in _LASTING_CLASSES


def refusal_state(conninfo: str) -> str | None:
    """Connect, and return the SQLSTATE with which a server refuses; None where none does."""
    connection = pq.PGconn.connect_start(conninfo.encode())
    # A password that a server asks for in the clear is in the trace, too: it stays in memory, and goes at once.
    with os.fdopen(os.memfd_create("trace"), "r+b") as trace:
        try:
            _poll(connection, trace.fileno())
        finally:
            connection.finish()
        trace.seek(0)
        states: list[bytes] = _STATE.findall(trace.read())
    return states[-1].decode() if states else None


def _poll(connection: pq.abc.PGconn, trace: int) -> None:
    """Go on with the connection until it stands, is refused, or the time is up; trace it once somebody answers."""
    traced = False
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while connection.status != pq.ConnStatus.BAD and time.monotonic() < deadline:
        if not traced and connection.status != pq.ConnStatus.STARTED:
            connection.trace(trace)
            connection.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
            traced = True
        wanted = connection.connect_poll()
        if wanted not in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
            break
        reading, writing = (
            ([connection.socket], []) if wanted == pq.PollingStatus.READING else ([], [connection.socket])
        )
        select.select(reading, writing, [], max(0.0, deadline - time.monotonic()))
    if traced:
        connection.untrace()


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return str(error).strip().partition("\n")[0]
