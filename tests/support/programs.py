"""posture-analyzer and posture-publisher as the processes that a user starts, with their logs."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.brokers import Broker, analyzer_user
from tests.support.databases import Database
from tests.support.waiting import free_port, wait_until

REFUSED = 78


class Program:
    """One program with its environment; start it as often as you like, all its output goes to one log.

    Leaving the block kills what still runs and fails where one of `secrets` has got into the log.
    """

    def __init__(
        self,
        command: str,
        environment: Mapping[str, str],
        *,
        log: Path,
        secrets: Iterable[str] = (),
        wrapper: Iterable[str] = (),
        arguments: Iterable[str] = (),
    ) -> None:
        self.environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        self.environment |= {"POSTURE_HTTP_PORT": str(free_port()), **environment}
        self.log = log
        self.secrets = [secret for secret in secrets if secret]
        self._name = command
        self._command = [*wrapper, str(Path(sys.executable).parent / command), *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process and self._process.poll() is None:
            self.kill()
        text = self.output
        assert not [secret for secret in self.secrets if secret in text], f"{self.log} tells a password"

    @property
    def output(self) -> str:
        """Everything it has written so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The latest process."""
        assert self._process, f"{self._name} was never started"
        return self._process

    def start(self) -> None:
        """Start it; do not wait for anything."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self.environment, stdout=log, stderr=log)

    def wait_ready(self, *, timeout: float = 30) -> float:
        """Return the seconds that it took until /readyz said so."""
        began = time.monotonic()

        def ready() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self._name} exited with {self.process.returncode}: {self.output[-3000:]}")
            return self.get("/readyz")[0] == 200

        wait_until(ready, timeout=timeout, describe=lambda: f"{self._name} is ready: {self.output[-3000:]}")
        return time.monotonic() - began

    def get(self, path: str) -> tuple[int, str]:
        """Return status and text of a path on its port; status 0 where nobody answers."""
        address = f"http://127.0.0.1:{self.environment['POSTURE_HTTP_PORT']}{path}"
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(timeout=10)

    def terminate(self, *, timeout: float = 20) -> int:
        """SIGTERM; return its exit code."""
        self.process.terminate()
        return self.wait(timeout=timeout)

    def wait(self, *, timeout: float) -> int:
        """Return its exit code when it ends by itself."""
        try:
            return self.process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self._name} did not end in {timeout} s: {self.output[-3000:]}") from None

    def rss_mb(self) -> float:
        """Return its resident memory in MB."""
        return self._memory_mb("VmRSS")

    def peak_mb(self) -> float:
        """Return the most resident memory it ever had, in MB."""
        return self._memory_mb("VmHWM")

    def _memory_mb(self, name: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        assert found, "the process has ended"
        return int(found[1]) / 1024


def children(pid: int) -> list[int]:
    """Return the processes that a program has started and that run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if f"\nPPid:\t{pid}\n" in status.read_text():
                found.append(int(status.parent.name))
    return found


def analyzer(
    broker: Broker,
    database: Database,
    directory: Path,
    *,
    stream: str = "pi1",
    wrapper: Iterable[str] = (),
    arguments: Iterable[str] = (),
    **settings: str,
) -> Program:
    """Return an analyzer of the stream, not yet started; `settings` are further variables without POSTURE_.

    Pictures go to <directory>/images. One pass, unless told otherwise: twice as fast, and all else is the same. No
    floor of free space: this machine's disk, or one that is to run full, is not the test's business.
    """
    environment = {
        "POSTURE_STREAM": stream,
        "POSTURE_NODE": "test-node",
        "POSTURE_MQTT_PORT": str(broker.port),
        "POSTURE_MQTT_HOST": "127.0.0.1",
        "POSTURE_MQTT_USER": analyzer_user(stream),
        "POSTURE_MQTT_PASSWORD": broker.passwords[analyzer_user(stream)],
        "POSTURE_DATABASE_URL": database.url,
        "POSTURE_IMAGES_DIR": str(directory / "images"),
        "POSTURE_PASSES": "1",
        "POSTURE_DISK_FLOOR": "0",
    }
    (directory / "images").mkdir(parents=True, exist_ok=True)
    return Program(
        "posture-analyzer",
        environment | {f"POSTURE_{name}": value for name, value in settings.items()},
        log=directory / f"analyzer-{stream}.log",
        secrets=[*broker.passwords.values(), database.password],
        wrapper=wrapper,
        arguments=arguments,
    )


def publisher(
    broker: Broker, directory: Path, *, pi_id: str, source: Path, wrapper: Iterable[str] = (), **settings: str
) -> Program:
    """Return a publisher of the pictures in `source`, not yet started; its spool is <directory>/spool."""
    environment = {
        "POSTURE_PI_ID": pi_id,
        "POSTURE_MQTT_HOST": "127.0.0.1",
        "POSTURE_MQTT_PORT": str(broker.pi_port),
        "POSTURE_MQTT_USER": pi_id,
        "POSTURE_MQTT_PASSWORD": broker.passwords[pi_id],
        "POSTURE_CAMERA": f"directory:{source}",
        "POSTURE_INTERVAL": "0.02",
        "POSTURE_SPOOL_DIR": str(directory / "spool"),
        "POSTURE_DISK_FLOOR": "0",
    }
    (directory / "spool").mkdir(parents=True, exist_ok=True)
    return Program(
        "posture-publisher",
        environment | {f"POSTURE_{name}": value for name, value in settings.items()},
        log=directory / f"publisher-{pi_id}.log",
        secrets=broker.passwords.values(),
        wrapper=wrapper,
    )
