"""A database that is there already: role database checks it over verified TLS and brings its table up to date."""

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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
            # The machine's own Python: it has the driver that a deployment uses.
            ran = run_play(
                tmp_path,
                tasks,
                groups=["broker", "database"],
                python="/usr/bin/python3",
                become=True,
                arguments=["-vvv"],
            )
            output = ran.stdout + ran.stderr
            assert ran.returncode == 0, output[-4000:]
            assert not [word for word in (database.password, WRONG) if word in output]
            return output

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
