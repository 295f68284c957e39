"""A database that is there already: role database checks it over verified TLS and brings its table up to date."""

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.support.certificates import Authority
from tests.support.databases import Cluster, Database
from tests.support.plays import Task, refusals, refused, role, run_play

WRONG = "Falsch-8a52"


@pytest.fixture
def instance() -> Iterator[str]:
    """A deployment's name of the test's own; its directories go with the test."""
    name = f"pt-{secrets.token_hex(4)}"
    yield name
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*as_root, "rm", "-rf", f"/etc/{name}", f"/var/lib/{name}"], check=True)


@pytest.mark.timeout(180)
def test_a_given_database_is_migrated_over_verified_tls_once(cluster: Cluster, instance: str, tmp_path: Path) -> None:
    """Needs root, or sudo without a password: the role writes the certificate authority under /etc."""
    right, other = (tmp_path / f"{name}.crt" for name in ("right", "other"))
    authority = Authority()
    right.write_text(authority.certificate)
    other.write_text(Authority().certificate)

    with cluster.tls(authority), cluster.database(empty=True) as database:

        def given(database: Database, ca: Path) -> Task:
            url = f"{database.url.replace('127.0.0.1', 'localhost')}?sslmode=verify-full"
            variables = {"posture_database_url": url, "posture_database_ca": str(ca)}
            return role("database", {"posture_instance": instance, **variables})

        def run(tasks: list[Task]) -> str:
            return _played(tmp_path, tasks, secret=[database.password, WRONG])

        wrong = replace(database, password=WRONG)
        attempts = {"authority": given(database, other), "password": given(wrong, right)}
        run([*refusals(tmp_path, attempts), given(database, right)])
        said = refused(tmp_path)
        for message in said.values():
            named = f"localhost cannot use the database {database.name} at localhost:{database.port} as posture: "
            assert (message or "").startswith(named), said
        assert "certificate verify failed" in (said["authority"] or "")
        assert "for a certificate, posture_database_ca" in (said["authority"] or "")
        assert 'password authentication failed for user "posture"' in (said["password"] or "")
        assert database.count() == 0

        assert re.search(r"^localhost .* changed=0 ", run([given(database, right)]), re.MULTILINE)


@pytest.mark.timeout(300)
def test_its_administrator_migrates_it_and_makes_the_accounts(cluster: Cluster, instance: str, tmp_path: Path) -> None:
    """As on an older Supabase, where each new table is everybody's."""
    password, changed = secrets.token_hex(8), secrets.token_hex(8)
    with cluster.database(empty=True) as database:
        database.execute("CREATE ROLE anon LOGIN")
        database.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon, PUBLIC")
        address = f"127.0.0.1:{database.port}/{database.name}"

        def run(word: str, *readers: str) -> str:
            variables = {
                "posture_instance": instance,
                "posture_secrets_dir": str(tmp_path / ".secrets"),
                "posture_database_url": f"postgresql://lab:{word}@{address}",
                "posture_database_admin_url": database.owner_url,
                "posture_database_readers": list(readers),
            }
            owners = database.owner_url.split(":")[2].partition("@")[0]
            return _played(tmp_path, [role("database", variables)], secret=[password, changed, owners])

        def allowed(account: str, word: str, statement: str) -> bool:
            with psycopg.connect(f"postgresql://{account}:{word}@{address}") as connection:
                try:
                    connection.execute(statement.encode())
                except psycopg.errors.InsufficientPrivilege:
                    return False
            return True

        add, read = "INSERT INTO posture_results (pi_id) VALUES ('pi1')", "SELECT FROM posture_results"
        try:
            run(password, "board")
            words = {"lab": password, "board": (tmp_path / ".secrets/database-board.txt").read_text()}
            for account, may_add in (("lab", True), ("board", False)):
                assert (allowed(account, words[account], add), allowed(account, words[account], read)) == (
                    may_add,
                    True,
                )
            assert not allowed("lab", password, "INSERT INTO posture_results (id) VALUES (7)")
            assert _has_rights(database, "anon") == (False, False)
            assert re.search(r"^localhost .* changed=0 ", run(password, "board"), re.MULTILINE)

            output = run(changed)
            assert allowed("lab", changed, read)
            assert "board" not in output.partition("PLAY RECAP")[2]
            assert not (tmp_path / ".secrets/database-board.txt").exists()
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                allowed("board", words["board"], read)

            database.execute("GRANT SELECT ON posture_results TO anon")
            database.execute("ALTER TABLE posture_results OWNER TO posture")
        finally:
            for account in ("lab", "anon"):
                database.execute(
                    f"DO $$ BEGIN DROP OWNED BY {account}; EXCEPTION WHEN undefined_object THEN NULL; END $$"
                )
                database.execute(f"DROP ROLE IF EXISTS {account}")


def _has_rights(database: Database, account: str) -> tuple[bool, bool]:
    right = "has_table_privilege(%(account)s, 'posture_results', '{}')"
    with psycopg.connect(database.owner_url) as connection:
        asked = f"SELECT {right.format('SELECT')}, {right.format('INSERT')}"
        row = connection.execute(asked.encode(), {"account": account}).fetchone()
    assert row
    return row[0], row[1]


def _played(directory: Path, tasks: list[Task], *, secret: list[str]) -> str:
    """Return what Ansible says of the tasks, which have to succeed and to show nothing secret."""
    # The machine's own Python: it has the driver that a deployment uses.
    ran = run_play(
        directory, tasks, groups=["broker", "database"], python="/usr/bin/python3", become=True, arguments=["-vvv"]
    )
    output = ran.stdout + ran.stderr
    assert ran.returncode == 0, output[-4000:]
    assert not [word for word in secret if word in output]
    return output
