"""Each account of the database may do what it is there for, and nothing else; who else may is said."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.support.databases import USER, Cluster, Database, give_rights, others

ROW = "INSERT INTO posture_results (pi_id, image_id, posture_status) VALUES ('pi1', %s, 'Good') RETURNING image_id"
READER = "board"
SUPABASE = ("anon", "authenticated", "service_role")
"""The accounts that each of its projects has; the first two stand for whoever has the public key."""


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def owner(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with connected(database.owner_url) as connection:
        yield connection


@pytest.fixture
def accounts(owner: psycopg.Connection[Any]) -> Iterator[str]:
    """Let there be a reader and the accounts of Supabase; yields their password, and removes them again."""
    password = secrets.token_hex(8)
    names = (READER, "grafana", *SUPABASE)
    for name in names:
        owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'".encode())
    owner.execute("ALTER ROLE service_role BYPASSRLS")
    yield password
    for name in names:
        owner.execute(f"DROP OWNED BY {name}".encode())
        owner.execute(f"DROP ROLE {name}".encode())


def as_(name: str, password: str, database: Database) -> str:
    return f"postgresql://{name}:{password}@127.0.0.1:{database.port}/{database.name}"


def test_an_analyzer_adds_rows_and_reads_them(database: Database) -> None:
    with connected(database.url) as connection:
        assert connection.execute(ROW, ["one"]).fetchone() == ("one",)
        assert connection.execute(ROW.replace("RETURNING", "ON CONFLICT DO NOTHING RETURNING"), ["one"]).rowcount == 0
        assert connection.execute("SELECT count(*) FROM posture_results").fetchone() == (1,)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO posture_results (id, pi_id, image_id) VALUES (7, 'pi1', 'one')",
        "SELECT setval('posture_results_id_seq', 1000)",
        "UPDATE posture_results SET posture_status = 'Good'",
        "DELETE FROM posture_results",
        "TRUNCATE posture_results",
        "DROP TABLE posture_results",
        "ALTER TABLE posture_results DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON posture_results TO posture USING (true)",
        "CREATE TABLE mine (id int)",
        "CREATE TRIGGER mine BEFORE INSERT ON posture_results EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "SET ROLE owner",
        "COPY posture_results TO '/tmp/rows'",
    ],
)
def test_an_analyzers_account_may_do_nothing_else(database: Database, statement: str) -> None:
    with connected(database.url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_a_reader_reads(database: Database, owner: psycopg.Connection[Any], accounts: str) -> None:
    owner.execute(ROW, ["one"])
    give_rights(owner, readers=[READER])
    with connected(as_(READER, accounts, database)) as connection:
        assert connection.execute("SELECT image_id FROM posture_results").fetchall() == [("one",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(ROW, ["two"])


@pytest.mark.parametrize("account", ["anon", "authenticated", "PUBLIC"])
def test_what_an_older_supabase_gave_to_everybody_is_taken(
    database: Database, owner: psycopg.Connection[Any], accounts: str, account: str
) -> None:
    for thing in ("TABLE posture_results", "SEQUENCE posture_results_id_seq"):
        owner.execute(f"GRANT ALL ON {thing} TO {account}".encode())
    assert others(owner, USER)["anon" if account == "PUBLIC" else account][:2] == (True, True)
    give_rights(owner)
    assert not others(owner, USER)
    name = "anon" if account == "PUBLIC" else account
    for statement in (
        "SELECT FROM posture_results",
        "SELECT nextval('posture_results_id_seq')",
        "DELETE FROM posture_results",
    ):
        with (
            connected(as_(name, accounts, database)) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement.encode())


def test_everybody_reads_where_that_is_asked_for_and_no_more(
    database: Database, owner: psycopg.Connection[Any], accounts: str
) -> None:
    owner.execute(ROW, ["one"])
    owner.execute("GRANT ALL ON posture_results TO anon")
    give_rights(owner, public=True)
    with connected(as_("anon", accounts, database)) as connection:
        assert connection.execute("SELECT image_id FROM posture_results").fetchall() == [("one",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(ROW, ["two"])
    assert others(owner, USER) == {"anon": (True, False, True), "authenticated": (True, False, True)}
    give_rights(owner)
    assert not others(owner, USER)


def test_whom_the_owner_let_read_is_named_and_sees_nothing_until_it_is_a_reader(
    database: Database, owner: psycopg.Connection[Any], accounts: str
) -> None:
    owner.execute(ROW, ["one"])
    owner.execute("GRANT SELECT ON posture_results TO grafana")
    owner.execute("GRANT ALL ON posture_results TO service_role")
    give_rights(owner)
    assert others(owner, USER) == {"grafana": (True, False, False), "service_role": (True, True, True)}
    with connected(as_("grafana", accounts, database)) as connection:
        assert connection.execute("SELECT FROM posture_results").rowcount == 0
        give_rights(owner, readers=["grafana"])
        assert connection.execute("SELECT FROM posture_results").rowcount == 1


def test_right_rights_are_left_alone(owner: psycopg.Connection[Any], accounts: str) -> None:
    for values in (
        {},
        {"readers": [READER, "nobody-of-this-name"]},
        {"public": True},
        {"writer": "owner"},
        {"writer": "grafana"},
    ):
        give_rights(owner, **values)
        assert give_rights(owner, **values) == [], values


def test_a_table_that_belongs_to_another_is_left_alone(
    database: Database, owner: psycopg.Connection[Any], accounts: str
) -> None:
    owner.execute("GRANT ALL ON posture_results TO anon")
    with connected(database.url) as connection:
        assert give_rights(connection) == []
        assert others(connection, USER) == {"anon": (True, True, False)}


def test_a_labs_own_serial_id_still_gets_its_number(cluster: Cluster) -> None:
    with cluster.database(empty=True) as database, connected(database.owner_url) as owner:
        owner.execute(
            "CREATE TABLE posture_results (id serial PRIMARY KEY, pi_id text, image_id text, posture_status text)"
        )
        give_rights(owner)
        with connected(database.url) as connection:
            assert connection.execute(ROW, ["one"]).fetchone() == ("one",)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT setval('posture_results_id_seq', 1000)")
        owner.execute("DROP TABLE posture_results")
