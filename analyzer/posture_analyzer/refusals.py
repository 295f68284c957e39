"""Why the database refuses a row, or all of them, and what to do about it."""

from dataclasses import dataclass
from typing import Any

import psycopg
from posture_common.service import LastingError

from .connecting import DatabaseUnavailableError, first_line

MIGRATE = "apply roles/database/files/migrations, as the role database does"
COMPARE = "compare the table with roles/database/files/migrations"
REMEDIES = {
    "42703": MIGRATE,  # A column is missing,
    "42P10": MIGRATE,  # the unique index is.
    "42804": f"a column has a type that takes no such value: {COMPARE}",
    "28P01": "correct the settings",
    "3D000": "correct the settings",
}
"""What to do about these states of a statement, none of which waiting cures."""
PASSING_CLASSES = frozenset({"08", "0B", "25", "26", "2D", "3B", "40", "53", "55", "57", "58", "72", "F0", "HV", "XX"})
"""Of SQLSTATE: the connection, the transaction, the server's resources or its operator. Here waiting helps."""
FAILED_CLASSES = frozenset({"HV", "XX"})
"""Of SQLSTATE: foreign tables' and internal errors, and what an extension's trigger or type says that names no own."""
SLOW = "57014"
"""A statement that was cancelled for its time. Waiting for a lock has a state of its own."""
LASTING_CLASSES = frozenset({"0A", "28", "3D", "3F", "42"})
"""Of SQLSTATE: the table, our right to it, the user. All others are about the values of a row."""
KEY_STATES = frozenset({"23503", "23505"})
"""Where row-level security holds, the detail of these does not say which columns and values."""
KEY_COLUMNS = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass('posture_results') AND (
        attnum = ANY (SELECT unnest(conkey) FROM pg_constraint WHERE conrelid = attrelid AND conname = ANY(%s::text[]))
        OR attnum = ANY (SELECT unnest(indkey) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                         WHERE indrelid = attrelid AND relname = ANY(%s::text[]))
    ) ORDER BY attnum
"""
"""The columns of a constraint, or of a unique index, by its name (given twice)."""
_LONGEST_VALUE = 60
_LONGEST_REASON = 200
"""Characters; a trigger may have more to say."""

GRANTS = """
    SELECT quote_ident(current_user), ARRAY(
        SELECT privilege FROM unnest(ARRAY['SELECT', 'INSERT']) AS privilege
        WHERE EXISTS (
            SELECT FROM pg_attribute WHERE attrelid = results AND attname = ANY(%s::text[])
            AND NOT has_column_privilege(results, attnum, privilege)
        )
    ), ARRAY(
        SELECT command FROM unnest(ARRAY['INSERT', 'SELECT']) AS command
        WHERE row_security_active(results) AND NOT EXISTS (
            SELECT FROM pg_policy WHERE polrelid = results AND polpermissive
            AND polcmd IN ('*', CASE command WHEN 'INSERT' THEN 'a' ELSE 'r' END)
            AND EXISTS (SELECT FROM unnest(polroles) AS role WHERE role = 0 OR pg_has_role(role, 'USAGE'))
        )
    ), ARRAY(
        SELECT sequence FROM pg_attribute, pg_get_serial_sequence('posture_results', attname) AS sequence
        WHERE attrelid = results AND attnum > 0 AND NOT attisdropped AND attidentity = ''
        AND sequence IS NOT NULL AND NOT has_sequence_privilege(sequence, 'USAGE')
    ), row_security_active(results)
    FROM CAST(to_regclass('posture_results') AS oid) AS results WHERE results IS NOT NULL
"""
"""For the table's columns: the user, and the arguments of `remedy_of_rights`; no row where there is no table."""
TABLES = (
    "SELECT quote_ident(current_user), relnamespace::regnamespace::text, pg_table_is_visible(oid) "
    "FROM pg_class WHERE relname = 'posture_results'"
)
"""For each such table: the arguments of `remedy_of_tables`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the database does not take a row; `column` is None where it cannot be told, `value` is shortened."""

    reason: str
    state: str | None = None
    column: str | None = None
    value: str | None = None
    key: str | None = None
    """The constraint that rows with this key do not meet."""

    def __str__(self) -> str:
        if self.column is None:
            return self.reason
        return f"column {self.column}{'' if self.value is None else f' = {self.value}'}: {self.reason}"


class RowRefusedError(Exception):
    """The database refuses a row for what is in it."""

    def __init__(self, message: str, refusal: Refusal) -> None:
        super().__init__(message)
        self.refusal = refusal


class ServerFailedError(DatabaseUnavailableError):
    """The server failed at a statement and goes on: it may be its own trouble, or what it makes of a row's values."""

    def __init__(self, message: str, refusal: Refusal) -> None:
        super().__init__(message)
        self.refusal = refusal


class TableRefusedError(LastingError):
    """The database refuses a statement for what the table is, or for who we are."""

    def __init__(self, message: str, refusal: Refusal) -> None:
        super().__init__(message)
        self.refusal = refusal


def remedy_of_rights(user: str, grants: list[str], commands: list[str], sequences: list[str], by_row: bool) -> str:
    """Return what lets the user insert and read.

    Args:
        user: who we are at the database, quoted.
        grants: privileges on the table that the user does not have.
        commands: those for which row-level security has no policy for the user.
        sequences: those that columns take their default from, and the user may not.
        by_row: whether row-level security holds for the user.
    """
    if grants:
        return f"GRANT {', '.join(grants)} ON posture_results TO {user}"
    if sequences:
        return f"GRANT USAGE ON SEQUENCE {', '.join(sequences)} TO {user}"
    if commands:
        condition = {"INSERT": "WITH CHECK (true)", "SELECT": "USING (true)"}
        policies = [
            f"CREATE POLICY posture_{command.lower()} ON posture_results FOR {command} TO {user} {condition[command]}"
            for command in commands
        ]
        missing = " and ".join(commands)
        return f"row-level security is on, and no policy lets the user {missing}: {'; '.join(policies)}"
    if by_row:
        return f"row-level security is on, and a policy refuses the row: let it take what {user} inserts, and show it"
    return f"grant {user} what is named"


def remedy_of_tables(found: list[tuple[Any, ...]]) -> str:
    """Return what to do about a missing table; `found` is what `TABLES` returns: user, schema, whether it is seen."""
    if not found:
        return MIGRATE
    if any(visible for *_, visible in found):
        return "a trigger, a rule or a default of posture_results needs what is named: make it, or drop them"
    user, schemas = found[0][0], ", ".join(schema for _, schema, _ in found)
    return (
        f"there is one in the schema {schemas}, where {user} does not look or may not: "
        f"GRANT USAGE ON SCHEMA {schemas} TO {user}, and ALTER ROLE {user} SET search_path = {schemas}"
    )


def refusal_of(error: psycopg.Error | UnicodeError) -> Refusal:
    """Return what PostgreSQL, or psycopg on its way there, says about a statement."""
    if isinstance(error, UnicodeError):
        return Refusal(reason=f"not a text that UTF-8 can hold: {short(first_line(error))}")
    diagnosis = error.diag
    reason = short((diagnosis.message_primary or first_line(error)).partition("\n")[0], longest=_LONGEST_REASON)
    if error.sqlstate in KEY_STATES and diagnosis.message_detail:
        reason += f": {short(diagnosis.message_detail, longest=_LONGEST_REASON)}"
    key = diagnosis.constraint_name if error.sqlstate in KEY_STATES else None
    return Refusal(reason=reason, state=error.sqlstate, column=diagnosis.column_name, key=key)


def short(text: str, *, longest: int = _LONGEST_VALUE) -> str:
    """Return the text, cut where it has more characters than `longest`."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
