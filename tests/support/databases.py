"""A real PostgreSQL cluster in a temporary directory, and fresh databases in it."""

import itertools
import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row

from tests.support.certificates import Authority
from tests.support.waiting import free_port, wait_until

USER = "posture"  # what the analyzer logs in as
_TEMPLATE = "posture_template"
_FILES = Path(__file__).parents[2] / "roles/database/files"
_MIGRATIONS = _FILES / "migrations"


def give_rights(
    connection: psycopg.Connection[Any], *, writer: str = USER, readers: Sequence[str] = (), public: bool = False
) -> list[str]:
    """Do what role database does with the rights on the tables; return the statements."""
    values = {"writer": writer, "readers": ",".join(readers), "public": public}
    statements = [text for (text,) in connection.execute((_FILES / "rights.sql").read_bytes(), values)]
    for statement in statements:
        connection.execute(statement.encode())
    return statements


def others(connection: psycopg.Connection[Any], *named: str) -> dict[str, tuple[bool, bool, bool]]:
    """Return who else has rights, as role database asks: whether each reads, changes, and sees rows."""
    found = connection.execute((_FILES / "others.sql").read_bytes(), {"named": ",".join(named)})
    return {name: (reads, writes, sees) for name, reads, writes, sees in found}


@dataclass(frozen=True)
class Database:
    """One database of a cluster: `url` is the analyzer's, rows are read as its owner."""

    name: str
    port: int
    user: str
    password: str
    owner_url: str

    @property
    def url(self) -> str:
        """The analyzer's address, with its password."""
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{self.name}"

    def execute(self, statement: str, *values: object) -> None:
        """Run one statement as the owner."""
        with psycopg.connect(self.owner_url, autocommit=True) as connection:
            connection.execute(statement.encode(), values)

    def rows(self) -> list[dict[str, Any]]:
        """Return all results in the order of their insertion."""
        with psycopg.connect(self.owner_url, row_factory=dict_row) as connection:
            return connection.execute("SELECT * FROM posture_results ORDER BY id").fetchall()

    def count(self) -> int:
        """Return how many results there are."""
        with psycopg.connect(self.owner_url) as connection:
            row = connection.execute("SELECT count(*) FROM posture_results").fetchone()
        assert row
        return int(row[0])


class Cluster:
    """A PostgreSQL server with password login only, as safe as a deployed one (fsync is on)."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.password = f"Geheim-posture-{secrets.token_hex(8)}"
        self._owner_password = secrets.token_hex(16)
        self._directory = directory
        self._data = directory / "data"
        self._binaries = _find_binaries()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        word = self._directory / "owner"
        word.write_text(self._owner_password)
        word.chmod(0o600)
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            for path in (self._directory, word):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._run(
            "initdb",
            "-D",
            self._data,
            "-U",
            "owner",
            "--pwfile",
            word,
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C",
        )
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n"
                "fsync = on\nmax_connections = 50\nshared_buffers = 32MB\n"
            )
        self.start()
        with psycopg.connect(self._owner_url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{self.password}'".encode())
            connection.execute(f"CREATE DATABASE {_TEMPLATE}".encode())
        migrations = sorted(_MIGRATIONS.glob("[0-9]*.sql"))
        if not migrations:
            raise RuntimeError(f"{_MIGRATIONS} holds no migration: there is no table to test with")
        with psycopg.connect(self._owner_url(_TEMPLATE)) as connection:
            for migration in migrations:
                connection.execute(migration.read_bytes())
            give_rights(connection)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop", check=False)

    def start(self) -> None:
        """Start the server and return when it takes connections."""
        self._run("pg_ctl", "-D", self._data, "-l", self._directory / "log", "-w", "start")
        wait_until(self._answers, timeout=30, describe=f"PostgreSQL answers on {self.port}")

    def stop(self) -> None:
        """Stop it at once, as a machine that is being shut down does: clients are cut off."""
        self._run("pg_ctl", "-D", self._data, "-m", "fast", "-w", "stop")

    @contextmanager
    def tls(
        self, authority: Authority, *, hosts: tuple[str, ...] = ("localhost",), begins_in: timedelta = timedelta()
    ) -> Iterator[None]:
        """Let new connections use TLS while the block runs, with a certificate of the authority for the hosts."""
        pair = authority.sign("database", hosts=hosts, begins_in=begins_in)
        for name, text in (("server.crt", pair.public), ("server.key", pair.key)):
            path = self._data / name
            path.write_text(text)
            path.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(path, "postgres", "postgres")
        self._set_tls("on")
        yield
        self._set_tls("off")

    @contextmanager
    def letting_in(self, rules: str) -> Iterator[None]:
        """Have these rules (pg_hba.conf) for everybody but the owner while the block runs."""
        path = self._data / "pg_hba.conf"
        before = path.read_text()
        self._let_in(path, f"host all owner 127.0.0.1/32 scram-sha-256\n{rules}")
        yield
        self._let_in(path, before)

    def _let_in(self, path: Path, rules: str) -> None:
        path.write_text(rules)
        loaded = self._asked("SELECT pg_conf_load_time()::text")
        self._owner("SELECT pg_reload_conf()")
        wait_until(
            lambda: self._asked("SELECT pg_conf_load_time()::text") != loaded, timeout=10, describe="it has the rules"
        )

    def _set_tls(self, value: str) -> None:
        self._owner(f"ALTER SYSTEM SET ssl = {value}")
        self._owner("SELECT pg_reload_conf()")
        wait_until(lambda: self._asked("SHOW ssl") == value, timeout=10, describe=f"PostgreSQL has TLS {value}")

    def _asked(self, question: str) -> str:
        with psycopg.connect(self._owner_url("postgres")) as connection:
            row = connection.execute(question.encode()).fetchone()
        assert row
        return str(row[0])

    @contextmanager
    def database(self, *, empty: bool = False, encoding: str = "UTF8") -> Iterator[Database]:
        """Make a fresh, migrated database, or an empty one of the analyzer's own, and drop it afterwards."""
        name = f"posture_{next(self._numbers)}"
        template = "template0" if empty else _TEMPLATE
        owner = f"OWNER {USER}" if empty else ""
        self._owner(f"CREATE DATABASE {name} TEMPLATE {template} ENCODING '{encoding}' {owner}")
        yield Database(name, self.port, USER, self.password, self._owner_url(name))
        self._owner(f"DROP DATABASE {name} WITH (FORCE)")

    def _owner(self, statement: str) -> None:
        with psycopg.connect(self._owner_url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _owner_url(self, database: str) -> str:
        return f"postgresql://owner:{self._owner_password}@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._owner_url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str | Path, check: bool = True) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *command]
        # pg_ctl's server inherits the pipes: with captured output this would wait for the server to end.
        with (self._directory / "commands.log").open("a+") as log:
            ran = subprocess.run(command, cwd=self._directory, stdout=log, stderr=log, check=False)
            if check and ran.returncode:
                log.seek(0)
                raise RuntimeError(f"{' '.join(command)} failed with {ran.returncode}: {log.read()[-2000:]}")


def _find_binaries() -> Path:
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: float(path.parts[4]), default=None)
    if newest:
        return newest.parent
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    raise RuntimeError("PostgreSQL's server is missing: apt-get install -y --no-install-recommends postgresql")
