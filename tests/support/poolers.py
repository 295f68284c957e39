"""A real pgbouncer that hands its one connection to the database on after each transaction."""

import os
import pwd
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from tests.support.databases import Database
from tests.support.waiting import free_port, wait_until


class Pooler:
    """The pooler of one database while the `with` block runs; `database` is the database behind it.

    Everybody in its pool shares a single connection to PostgreSQL, so that what one leaves there the next one finds.
    """

    def __init__(self, database: Database, directory: Path, *, query_wait_s: int = 120) -> None:
        self._query_wait_s = query_wait_s
        self.database = replace(database, port=free_port())
        self._behind = database
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        binary = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            raise RuntimeError("pgbouncer is missing: apt-get install -y --no-install-recommends pgbouncer")
        self._directory.mkdir(parents=True)
        users = self._directory / "users"
        users.write_text(f'"{self.database.user}" "{self.database.password}"\n')
        settings = self._directory / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n{self._behind.name} = host=127.0.0.1 port={self._behind.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.database.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\npool_mode = transaction\ndefault_pool_size = 1\n"
            f"query_wait_timeout = {self._query_wait_s}\n"
        )
        command = [binary, str(settings)]
        if os.geteuid() == 0:  # pgbouncer refuses to run as root
            account = pwd.getpwnam("postgres")
            for path in (self._directory, users, settings):
                os.chown(path, account.pw_uid, account.pw_gid)
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *command]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._answers, timeout=10, describe=lambda: (self._directory / "log").read_text())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(timeout=10)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.database.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
