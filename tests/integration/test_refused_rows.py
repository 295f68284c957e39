"""What a table refuses: one row for what is in it, or all of them; each with its remedy."""

from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest
from posture_analyzer import database as database_module
from posture_analyzer.connecting import DatabaseUnavailableError
from posture_analyzer.database import Database as AnalyzersDatabase
from posture_analyzer.refusals import Refusal, RowRefusedError
from posture_common.service import LastingError

from tests.support.databases import Cluster, Database
from tests.support.rows import row

LONG = "x" * 100
INCOMPRESSIBLE = "".join(chr(0x4E00 + number) for number in range(5000))
ALTER = "ALTER TABLE posture_results"
TWICE = "INSERT INTO posture_results (filename, image_id) VALUES ('twice', 'x')"
PIS = ("CREATE TABLE pis (id text PRIMARY KEY)", "INSERT INTO pis VALUES ('pi1')")
TRIGGER = "CREATE TRIGGER guard BEFORE INSERT ON posture_results FOR EACH ROW EXECUTE FUNCTION guard()"
NO_POLICY = (
    "DROP POLICY posture_select ON posture_results",
    "DROP POLICY posture_insert ON posture_results",
)
"""There are those that role database makes."""
POLICIES = (*NO_POLICY, "CREATE POLICY see ON posture_results FOR SELECT TO posture USING (true)")
INSERT = r"CREATE POLICY posture_insert ON posture_results FOR INSERT TO posture WITH CHECK \(true\)"
SELECT = r"CREATE POLICY posture_select ON posture_results FOR SELECT TO posture USING \(true\)"


def guard(body: str) -> str:
    return f"CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$"


def guard_bad(statement: str) -> str:
    return guard(f"IF NEW.filename = 'bad' THEN {statement}; END IF;")


@pytest.fixture
def analyzers(database: Database) -> Iterator[AnalyzersDatabase]:
    kept = AnalyzersDatabase(database.url, probe_pi_id="pi1")
    yield kept
    kept.close()


# What is done to the table; what is wrong with the one row; the state, column and value that are told.
BY_ROW: dict[str, tuple[list[str], dict[str, object], str | None, str | None, str | None]] = {
    "too long": ([f"{ALTER} ALTER filename TYPE varchar(20)"], {"filename": LONG}, "22001", "filename", "'xx"),
    "too long a key": ([f"{ALTER} ALTER pi_id TYPE varchar(20)"], {"pi_id": LONG}, "22001", "pi_id", "'xx"),
    "out of range": (
        [f"{ALTER} ALTER neck_angle TYPE numeric(4, 2)"],
        {"neck_angle": 123.4},
        "22003",
        "neck_angle",
        "123.4",
    ),
    "not null": ([f"{ALTER} ALTER filename SET NOT NULL"], {"filename": None}, "23502", "filename", None),
    "check": ([f"{ALTER} ADD CHECK (body_angle < 90)"], {"body_angle": 111.0}, "23514", "body_angle", "111.0"),
    "check beside columns that must not be null": (
        [f"{ALTER} ALTER pi_id SET NOT NULL, ALTER stream SET NOT NULL, ADD CHECK (stream <> 'bad')"],
        {"stream": "bad"},
        "23514",
        "stream",
        "'bad'",
    ),
    "two at once": (
        [f"{ALTER} ALTER filename TYPE varchar(30), ALTER processed_by TYPE varchar(20)"],
        {"filename": LONG, "processed_by": LONG},
        "22001",
        "filename",
        "'xx",
    ),
    "a check that the row of `check` does not pass": (
        [f"{ALTER} ADD CHECK (octet_length(filename) < 10)"],
        {"filename": "a-longer-name"},
        "23514",
        "filename",
        "'a-longer",
    ),
    "domain": (
        ["CREATE DOMAIN short AS text CHECK (length(VALUE) < 50)", f"{ALTER} ALTER filename TYPE short"],
        {"filename": LONG},
        "23514",
        "filename",
        "'xx",
    ),
    "unique": (
        ["CREATE UNIQUE INDEX ON posture_results (filename)", TWICE],
        {"filename": "twice"},
        "23505",
        "filename",
        "'twice'",
    ),
    "exclusion": (
        [f"{ALTER} ADD EXCLUDE (filename WITH =)", TWICE],
        {"filename": "twice"},
        "23P01",
        "filename",
        "'twice'",
    ),
    "foreign key": (
        [*PIS, f"{ALTER} ADD FOREIGN KEY (pi_id) REFERENCES pis"],
        {"pi_id": "pi2"},
        "23503",
        "pi_id",
        "'pi2'",
    ),
    "at the commit": (
        [*PIS, f"{ALTER} ADD FOREIGN KEY (pi_id) REFERENCES pis DEFERRABLE INITIALLY DEFERRED"],
        {"pi_id": "pi2"},
        "23503",
        "pi_id",
        "'pi2'",
    ),
    "trigger": (
        [guard_bad("RAISE USING MESSAGE = repeat('Nein ', 100000)"), TRIGGER],
        {"filename": "bad"},
        "P0001",
        "filename",
        "'bad'",
    ),
    "a trigger's own state": (
        [guard_bad("RAISE EXCEPTION USING ERRCODE = 'LAB01', MESSAGE = 'Nein'"), TRIGGER],
        {"filename": "bad"},
        "LAB01",
        "filename",
        "'bad'",
    ),
    "an extension's words for everything": (
        [guard_bad("RAISE EXCEPTION USING ERRCODE = 'XX000', MESSAGE = 'Nein'"), TRIGGER],
        {"filename": "bad"},
        "XX000",
        "filename",
        "'bad'",
    ),
    "a trigger's words for a table": (
        [guard_bad("RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'Nein'"), TRIGGER],
        {"filename": "bad"},
        "42501",
        "filename",
        "'bad'",
    ),
    "a trigger that drops it": ([guard_bad("RETURN NULL"), TRIGGER], {"filename": "bad"}, None, None, None),
    "a policy for each row": (
        [
            *POLICIES,
            "CREATE POLICY add ON posture_results FOR INSERT WITH CHECK (filename IS NULL OR filename <> 'bad')",
        ],
        {"filename": "bad"},
        "42501",
        "filename",
        "'bad'",
    ),
    "too large for the index": (
        ["CREATE INDEX ON posture_results (filename)"],
        {"filename": INCOMPRESSIBLE},
        "54000",
        "filename",
        "'",
    ),
    "NUL": ([], {"filename": "a\0b"}, None, "filename", r"'a\x00b'"),
    "half a character": ([], {"filename": "a\ud83d"}, None, "filename", r"'a\ud83d'"),
}


@pytest.mark.parametrize("case", BY_ROW)
def test_a_row_that_does_not_fit_costs_that_row(database: Database, analyzers: AnalyzersDatabase, case: str) -> None:
    changes, values, state, column, value = BY_ROW[case]
    for change in changes:
        database.execute(change)
    before = database.count()
    with suppress(RowRefusedError):
        analyzers.check()
    rows = [row("first", filename="one"), row("second", **values), row("third", filename="three")]
    for _ in range(2):  # again, as after a lost answer
        outcome = analyzers.insert(rows)
        [(key, refusal)] = outcome.refused.items()
        assert key == rows[1].key
        assert (refusal.state, refusal.column) == (state, column), refusal
        assert (refusal.value or "").startswith(value or ""), refusal
        assert len(str(refusal)) < 300
        assert outcome.new | outcome.standing.keys() == {rows[0].key, rows[2].key}
    assert database.count() == before + 2


def test_a_row_that_is_there_already_is_not_refused(database: Database, analyzers: AnalyzersDatabase) -> None:
    stored = row("a", filename=LONG)
    analyzers.insert([stored])
    database.execute(f"{ALTER} ADD CHECK (length(filename) < 20) NOT VALID")
    outcome = analyzers.insert([stored, row("b")])
    assert (outcome.new, outcome.standing, outcome.refused) == ({row("b").key}, {stored.key: stored}, {})


def test_an_id_that_somebody_took_costs_no_more_than_its_row(database: Database, analyzers: AnalyzersDatabase) -> None:
    database.execute("INSERT INTO posture_results (id, image_id) SELECT n, n::text FROM generate_series(1, 9) AS n")
    refused = 0
    for number in range(20):
        outcome = analyzers.insert([row(str(number))])
        refused += len(outcome.refused)
        assert all(refusal.column == "id" for refusal in outcome.refused.values())
    assert (refused, database.count()) == (9, 9 + 11)


# What is done to the table, and what `check` says of it.
FOR_ALL: dict[str, tuple[list[str], str]] = {
    "no table": (
        ["DROP TABLE posture_results"],
        '"posture_results" does not exist; apply roles/database/files/migrations',
    ),
    "in another schema": (
        ["CREATE SCHEMA lab", f"{ALTER} SET SCHEMA lab"],
        "the schema lab, .*GRANT USAGE ON SCHEMA lab TO posture, and ALTER ROLE posture SET search_path = lab",
    ),
    "what a trigger needs": (
        [guard("PERFORM 1 FROM rooms;"), TRIGGER],
        '"rooms" does not exist; a trigger, a rule or a default of posture_results needs what is named',
    ),
    "no column": ([f"{ALTER} DROP clock_suspect"], "apply roles/database/files/migrations"),
    "no index": (["DROP INDEX posture_results_image"], "apply roles/database/files/migrations"),
    "another type": (
        [f"{ALTER} ALTER neck_angle TYPE interval USING NULL"],
        "a column has a type that takes no such value",
    ),
    "no grant": (["REVOKE ALL ON posture_results FROM posture"], "GRANT SELECT, INSERT ON posture_results TO posture$"),
    "to read only": (["REVOKE INSERT ON posture_results FROM posture"], "GRANT INSERT ON posture_results TO posture$"),
    "to write only": (["REVOKE SELECT ON posture_results FROM posture"], "GRANT SELECT ON posture_results TO posture$"),
    "no grant and policies": (
        ["REVOKE ALL ON posture_results FROM posture", *NO_POLICY],
        "GRANT SELECT, INSERT ON posture_results TO posture$",
    ),
    "the sequence": (
        [
            f"{ALTER} ALTER id DROP IDENTITY",
            "CREATE SEQUENCE ids OWNED BY posture_results.id",
            f"{ALTER} ALTER id SET DEFAULT nextval('ids')",
        ],
        "GRANT USAGE ON SEQUENCE public.ids TO posture$",
    ),
    "no policy": ([*NO_POLICY], rf"no policy lets the user INSERT and SELECT: {INSERT}; {SELECT}$"),
    "a policy to read": ([*POLICIES], rf"no policy lets the user INSERT: {INSERT}$"),
    "a policy to write": (
        [*NO_POLICY, "CREATE POLICY add ON posture_results FOR INSERT WITH CHECK (true)"],
        rf"no policy lets the user SELECT: {SELECT}$",
    ),
    "a policy of others": (
        [*NO_POLICY, "CREATE POLICY others ON posture_results FOR ALL TO owner USING (true)"],
        "lets the user INSERT and SELECT",
    ),
    "a policy that refuses": (
        [*POLICIES, "CREATE POLICY add ON posture_results FOR INSERT WITH CHECK (false)"],
        "a policy refuses the row: let it take what posture inserts",
    ),
    "a trigger that drops all": (
        [guard("RETURN NULL;"), TRIGGER],
        "the database drops the row without a word; look for a trigger",
    ),
}


@pytest.mark.parametrize("case", FOR_ALL)
def test_what_the_table_refuses_to_all_is_found_before_an_image_is_taken(
    database: Database, analyzers: AnalyzersDatabase, case: str
) -> None:
    changes, says = FOR_ALL[case]
    for change in changes:
        database.execute(change)
    with pytest.raises(LastingError, match=says):
        analyzers.check()


def test_a_constraint_that_waits_for_the_commit_is_found_too(database: Database) -> None:
    for change in BY_ROW["at the commit"][0]:
        database.execute(change)
    analyzers = AnalyzersDatabase(database.url, probe_pi_id="pi2")
    with pytest.raises(RowRefusedError, match=r"column pi_id\b.*'pi2'"):
        analyzers.check()
    analyzers.close()


@pytest.mark.parametrize("case", ["no policy", "a policy to read", "a policy to write"])
def test_the_policies_that_are_named_mend_it(database: Database, analyzers: AnalyzersDatabase, case: str) -> None:
    for change in FOR_ALL[case][0]:
        database.execute(change)
    with pytest.raises(LastingError) as caught:
        analyzers.check()
    for policy in str(caught.value).partition(": CREATE")[2].split("; CREATE"):
        database.execute(f"CREATE{policy}")
    analyzers.check()
    assert len(analyzers.insert([row("a")]).new) == 1


def test_nothing_of_the_check_stays_in_the_table(database: Database, analyzers: AnalyzersDatabase) -> None:
    analyzers.check()
    assert database.count() == 0


def test_a_table_with_a_column_of_the_labs_own_is_told_with_the_column(
    database: Database, analyzers: AnalyzersDatabase
) -> None:
    database.execute("ALTER TABLE posture_results ADD room text NOT NULL")
    with pytest.raises(RowRefusedError, match=r"column room: .*; give the column a default or let it be null"):
        analyzers.check()
    assert analyzers.insert([row("a")]).refused[row("a").key].column == "room"


def test_a_right_that_is_taken_away_while_it_runs_is_no_rows_fault(
    database: Database, analyzers: AnalyzersDatabase
) -> None:
    analyzers.check()
    database.execute("REVOKE INSERT ON posture_results FROM posture")
    with pytest.raises(LastingError, match=r"GRANT INSERT ON posture_results TO posture$"):
        analyzers.insert([row("a"), row("b")])


def test_a_server_that_fails_at_every_row_is_waited_for(database: Database, analyzers: AnalyzersDatabase) -> None:
    database.execute(guard("RAISE EXCEPTION USING ERRCODE = 'XX000', MESSAGE = 'Nein';"))
    database.execute(TRIGGER)
    with pytest.raises(DatabaseUnavailableError, match="Nein"):
        analyzers.check()
    with pytest.raises(DatabaseUnavailableError, match="Nein"):
        analyzers.insert([row("a"), row("b")])
    database.execute("DROP TRIGGER guard ON posture_results")
    assert len(analyzers.insert([row("a"), row("b")]).new) == 2


def test_a_row_that_takes_too_long_costs_that_row(
    database: Database, analyzers: AnalyzersDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "STATEMENT_TIMEOUT_S", 0.5)
    database.execute(guard_bad("PERFORM pg_sleep(60)"))
    database.execute(TRIGGER)
    outcome = analyzers.insert([row("first"), row("second", filename="bad"), row("third")])
    [refusal] = outcome.refused.values()
    assert str(refusal) == "canceling statement due to statement timeout"
    assert {image_id for _, image_id in outcome.new} == {"first", "third"}


def test_a_server_that_was_slow_at_a_row_once_takes_it(
    database: Database, analyzers: AnalyzersDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "STATEMENT_TIMEOUT_S", 0.5)
    database.execute("CREATE SEQUENCE tries")
    database.execute("GRANT USAGE ON tries TO posture")
    database.execute(guard("IF nextval('tries') = 1 THEN PERFORM pg_sleep(60); END IF;"))
    database.execute(TRIGGER)
    assert len(analyzers.insert([row("a")]).new) == 1


def test_a_row_that_somebody_holds_is_waited_for(
    database: Database, analyzers: AnalyzersDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "STATEMENT_TIMEOUT_S", 0.5)
    with psycopg.connect(database.url) as other:  # an analyzer that hangs before its commit
        other.execute("INSERT INTO posture_results (pi_id, image_id) VALUES ('pi1', 'a')")
        with pytest.raises(DatabaseUnavailableError, match="lock timeout"):
            analyzers.insert([row("a")])
        other.rollback()
    assert len(analyzers.insert([row("a")]).new) == 1


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "WIN1252"])
def test_another_encoding_is_refused_before_an_image_is_taken(cluster: Cluster, encoding: str) -> None:
    with cluster.database(empty=True, encoding=encoding) as odd:
        analyzers = AnalyzersDatabase(odd.url)
        with pytest.raises(LastingError, match=f"has the encoding {encoding}, .*ENCODING 'UTF8' TEMPLATE template0"):
            analyzers.check()
        analyzers.close()


def test_a_refusal_is_a_line() -> None:
    refusal = Refusal(reason="too long", state="22001", column="filename", value="'a'")
    assert str(refusal) == "column filename = 'a': too long"
    assert str(Refusal(reason="no")) == "no"
