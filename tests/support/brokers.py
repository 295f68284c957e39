"""A real mosquitto on loopback, with the users, permissions and two listeners of a deployment."""

import json
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from plugins.filter.mosquitto_accounts import Account, analyzer, offloader, pi, reader, rendered
from tests.support.certificates import Authority, Pair
from tests.support.mosquitto import Mosquitto
from tests.support.waiting import accepts, free_port, wait_until

ADMIN = "test-admin"  # may do everything: stands in for foreign cameras and looks at every topic
OFFLOADER = "posture-offloader"
ANY_STREAM = "all"


def analyzer_user(stream: str) -> str:
    """Return the name of the account that a stream's analyzers have."""
    return f"posture-analyzer-{stream}"


@dataclass(frozen=True)
class Listener:
    """A port: for Pis, the user name is the client id; with TLS, it has the broker's certificate."""

    port: int
    pis: bool
    tls: bool


class Broker:
    """One mosquitto that keeps its ports and its store over stop, kill and start.

    `port` is for analyzers and other users of the lab, `pi_port` the Pis' own listener: the user name is the client id.
    With an `authority`, both speak TLS with a certificate of it for 127.0.0.1.
    """

    def __init__(
        self,
        mosquitto: Mosquitto,
        directory: Path,
        *,
        pis: Iterable[str],
        readers: Iterable[str] = (),
        authority: Authority | None = None,
    ) -> None:
        self.mosquitto = mosquitto
        self._authority = authority
        self.port = free_port()
        self.pi_port = free_port()
        tls = authority is not None
        self.listeners = [Listener(self.port, pis=False, tls=tls), Listener(self.pi_port, pis=True, tls=tls)]
        """From the next start on."""
        pis = tuple(pis)
        self._accounts = [
            Account(name=ADMIN, reads=("#", "$SYS/#"), writes=("#",)),
            offloader(),
            *map(analyzer, (ANY_STREAM, *pis)),
            *map(pi, pis),
            *map(reader, readers),
        ]
        self._denied: dict[str, set[tuple[str, str]]] = {}
        names = [account.name for account in self._accounts]
        self.passwords = {name: f"Geheim-{name}-{secrets.token_hex(8)}" for name in names}
        self.accounts: dict[str, Any] | None = None
        """The plugin's file, where it is not to be what the role gives these users."""
        self.log = directory / "mosquitto.log"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "store").mkdir(exist_ok=True)
        if self._authority:
            self.show(self._authority.sign("broker", addresses=(IPv4Address("127.0.0.1"),)))
            self._write("ca.crt", self._authority.certificate)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process:
            self.kill()

    def start(self) -> None:
        """Write settings and accounts, start it and return when all listeners accept.

        Raises RuntimeError with its last words where it exits.
        """
        self._write("mosquitto.conf", self.configuration())
        self._write("accounts.json", json.dumps(self.accounts or self._rendered()))
        with self.log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [self.mosquitto.binary, "-c", self._directory / "mosquitto.conf"],
                env=os.environ | self.mosquitto.environment,
                stderr=log,
            )

        def listens() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"mosquitto exited with {process.returncode}: {self.log.read_text()[-2000:]}")
            return all(accepts(listener.port) for listener in self.listeners)

        wait_until(listens, timeout=30, describe=f"mosquitto listens on {self.listeners}")

    def stop(self) -> None:
        """SIGTERM: it saves its store."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what it has not saved is gone."""
        self._end(signal.SIGKILL)

    def show(self, pair: Pair) -> None:
        """Have another certificate from its next start on."""
        self._write("broker.crt", pair.public)
        self._write("broker.key", pair.key)

    def deny(self, user: str, right: str, topic: str) -> None:
        """Take a right from an account, as the plugin names it, from the broker's next start on."""
        self._denied.setdefault(user, set()).add((right, topic))

    def rss_mb(self) -> float:
        """Return its resident memory in MB."""
        assert self._process, "it runs"
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text())
        assert found, "it has ended"
        return int(found[1]) / 1024

    def configuration(self) -> str:
        """Return the role's settings, but for what would make a test slow or stop it from looking closer."""
        etc = self._directory
        # The store of a killed broker is up to three seconds old: what has to be lived with without losing an image.
        return f"""\
{"user root" if os.geteuid() == 0 else ""}
per_listener_settings false
allow_anonymous false
plugin {self.mosquitto.plugin}
plugin_opt_config_file {etc}/accounts.json
persistence true
persistence_location {etc}/store/
autosave_interval 3
max_queued_messages 20000
max_inflight_messages 0
log_dest stderr
connection_messages true
{"".join(map(self._listening, self.listeners))}"""

    def _listening(self, listener: Listener) -> str:
        etc = self._directory
        text = f"listener {listener.port} 127.0.0.1\n"
        if listener.tls:
            text += f"cafile {etc}/ca.crt\ncertfile {etc}/broker.crt\nkeyfile {etc}/broker.key\ntls_version tlsv1.2\n"
        if listener.pis:
            text += "use_username_as_clientid true\n"
        return text

    def _rendered(self) -> dict[str, Any]:
        accounts = rendered(self._accounts, {}, self.passwords)
        for role in accounts["roles"]:
            denied = self._denied.get(role["rolename"], set())
            role["acls"] = [acl for acl in role["acls"] if (acl["acltype"], acl["topic"]) not in denied]
        return accounts

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.wait(timeout=30)
            self._process = None

    def _write(self, name: str, text: str) -> None:
        path = self._directory / name
        path.write_text(text)
        path.chmod(0o600)
