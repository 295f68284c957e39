"""The database behind a pooler that gives each transaction any connection, as Supabase's port 6543 does."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from posture_analyzer import database as database_module
from posture_analyzer.connecting import DatabaseUnavailableError
from posture_analyzer.database import Database as AnalyzersDatabase
from posture_common.service import LastingError

from tests.support.databases import Database
from tests.support.poolers import Pooler
from tests.support.rows import row

SHOW_TIMEOUT = "SELECT current_setting('statement_timeout')"


@contextmanager
def pooling(database: Database, *, query_wait_s: int = 120) -> Iterator[Database]:
    # Not pytest's own temporary directory: pgbouncer's account may not look into root's.
    with tempfile.TemporaryDirectory(prefix="posture-test-") as name:
        Path(name).chmod(0o755)
        with Pooler(database, Path(name) / "pooler", query_wait_s=query_wait_s) as pooler:
            yield pooler.database


@pytest.fixture
def pooled(database: Database) -> Iterator[Database]:
    with pooling(database) as behind:
        yield behind


def test_the_statement_timeout_is_nobody_elses(pooled: Database) -> None:
    analyzers = AnalyzersDatabase(pooled.url)
    analyzers.check()
    assert len(analyzers.insert([row("a"), row("b")]).new) == 2
    with psycopg.connect(pooled.url, autocommit=True, prepare_threshold=None) as other:
        assert other.execute(SHOW_TIMEOUT).fetchone() == ("0",)
        analyzers.rows([row("a").key])
        assert other.execute(SHOW_TIMEOUT).fetchone() == ("0",)
    analyzers.close()


def test_the_statement_timeout_is_in_every_statement_whatever_others_set(pooled: Database) -> None:
    pooled.execute("ALTER TABLE posture_results ADD timeout text DEFAULT (current_setting('statement_timeout'))")
    analyzers = AnalyzersDatabase(pooled.url)
    with psycopg.connect(pooled.url, autocommit=True, prepare_threshold=None) as other:
        for number, what in enumerate(("SET statement_timeout = '1h'", "RESET statement_timeout", "DISCARD ALL")):
            other.execute(what)
            analyzers.insert([row(str(number))])
    assert [stored["timeout"] for stored in pooled.rows()] == ["20s", "20s", "20s"]
    analyzers.close()


def test_a_locked_table_does_not_hold_us_for_ever(pooled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "STATEMENT_TIMEOUT_S", 0.2)
    analyzers = AnalyzersDatabase(pooled.url)
    with psycopg.connect(pooled.owner_url) as owner:
        owner.execute("LOCK TABLE posture_results IN EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailableError, match="canceling statement due to lock timeout"):
            analyzers.insert([row("a")])
    assert len(analyzers.insert([row("a")]).new) == 1
    analyzers.close()


def test_a_pooler_without_a_free_connection_does_not_hold_us_for_ever(
    pooled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "ANSWER_TIMEOUT_S", 0.3)
    analyzers = AnalyzersDatabase(pooled.url)
    analyzers.check()
    with psycopg.connect(pooled.url, prepare_threshold=None) as other:
        other.execute("SELECT 1")  # Its transaction stays open, and the only connection with it.
        with pytest.raises(DatabaseUnavailableError, match=r"as user posture: no answer within 0\.3 s$"):
            analyzers.insert([row("a")])
    assert len(analyzers.insert([row("a")]).new) == 1
    analyzers.close()


def test_a_row_that_does_not_fit_leaves_the_poolers_connection_clean(pooled: Database) -> None:
    pooled.execute("ALTER TABLE posture_results ALTER filename TYPE varchar(10)")
    analyzers = AnalyzersDatabase(pooled.url)
    outcome = analyzers.insert([row("a"), row("b", filename="x" * 11), row("c")])
    assert (len(outcome.new), len(outcome.refused)) == (2, 1)
    with psycopg.connect(pooled.url, autocommit=True, prepare_threshold=None) as other:
        assert other.execute("SELECT count(*) FROM posture_results").fetchone() == (2,)
    analyzers.close()


@pytest.mark.parametrize("wrong", [{"password": "Falsch-1f8e"}, {"user": "nobody"}, {"name": "nowhere"}])
def test_what_the_pooler_refuses_for_good_is_not_waited_for(pooled: Database, wrong: dict[str, str]) -> None:
    with pytest.raises(LastingError, match=r"refuses us: .*; correct the settings"):
        AnalyzersDatabase(replace(pooled, **wrong).url).check()  # type: ignore[arg-type]


def test_a_server_that_takes_no_connection_behind_the_pooler_is_waited_for(database: Database) -> None:
    with pooling(database, query_wait_s=1) as pooled:
        database.execute(f"ALTER DATABASE {database.name} CONNECTION LIMIT 0")
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = %s",
            database.name,
            database.user,
        )
        with pytest.raises(DatabaseUnavailableError):
            AnalyzersDatabase(pooled.url).check()
