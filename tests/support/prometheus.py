"""A real Prometheus on loopback that scrapes what a test names."""

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.support.waiting import free_port, wait_until


@dataclass(frozen=True)
class Target:
    """One exporter: `labels` are added to its series; its own win where a target of its job has `honor_labels`."""

    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    job: str = "node"
    honor_labels: bool = False


class Prometheus:
    """One Prometheus that keeps its port and its data over stop, kill and start.

    `web_config` is its own file for TLS and users; `session` is what the test itself then asks with.
    """

    def __init__(
        self,
        directory: Path,
        targets: Iterable[Target] = (),
        *,
        scrape_interval_s: float = 0.5,
        web_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http{'s' if web_config and 'tls_server_config' in web_config else ''}://127.0.0.1:{self.port}"
        self.log = directory / "prometheus.log"
        self.session = requests.Session()
        self.session.trust_env = False  # REQUESTS_CA_BUNDLE would win over the session's own authority
        self._directory = directory
        self._targets = list(targets)
        self._interval = f"{round(1000 * scrape_interval_s)}ms"
        self._web_config = web_config
        self._binary = find_binary("prometheus")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._write("web.json", self._web_config or {})
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()
        if self._process:
            self.kill()

    def start(self) -> None:
        """Start it and return when it answers queries; raise RuntimeError with its last words where it exits."""
        self._write("prometheus.json", self._config())
        with self.log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [
                    self._binary,
                    f"--config.file={self._directory / 'prometheus.json'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    f"--web.config.file={self._directory / 'web.json'}",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
            )

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"Prometheus exited with {process.returncode}: {self.log.read_text()[-2000:]}")
            try:
                return self.session.get(f"{self.url}/-/ready", timeout=2).ok
            except requests.RequestException:
                return False

        try:
            wait_until(answers, timeout=30, describe=lambda: f"{self.url} is ready: {self.log.read_text()[-2000:]}")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """SIGTERM: it saves its data."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: it comes back with what is in its write-ahead log."""
        self._end(signal.SIGKILL)

    def scrape(self, targets: Iterable[Target]) -> None:
        """Scrape these instead, without a restart: within 5 s, as after a start."""
        self._targets = list(targets)
        self._write("prometheus.json", self._config())
        assert self._process, "Prometheus was never started"
        self._process.send_signal(signal.SIGHUP)

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """Return the series of an instant query: labels and value."""
        response = self.session.get(f"{self.url}/api/v1/query", params={"query": promql}, timeout=10)
        assert response.ok, f"{promql}: {response.text}"
        return [(each["metric"], float(each["value"][1])) for each in response.json()["data"]["result"]]

    def wait_for(
        self,
        promql: str,
        condition: Callable[[list[tuple[dict[str, str], float]]], bool] = bool,
        *,
        timeout: float = 20,
    ) -> list[tuple[dict[str, str], float]]:
        """Return the query's series as soon as they meet the condition: by default, as soon as there are any."""
        wait_until(
            lambda: condition(self.query(promql)),
            timeout=timeout,
            describe=lambda: f"{promql}, which is {self.query(promql)[:5]}; {self.log.read_text()[-1000:]}",
        )
        return self.query(promql)

    def _config(self) -> dict[str, Any]:
        jobs: dict[str, list[Target]] = {}
        for target in self._targets:
            jobs.setdefault(target.job, []).append(target)
        return {
            "global": {"scrape_interval": self._interval, "scrape_timeout": self._interval},
            "scrape_configs": [
                {
                    "job_name": job,
                    "honor_labels": any(each.honor_labels for each in targets),
                    "static_configs": [{"targets": [each.address], "labels": dict(each.labels)} for each in targets],
                }
                for job, targets in jobs.items()
            ],
        }

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.wait(timeout=30)
            self._process = None

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        (self._directory / name).write_text(json.dumps(content))  # JSON is YAML


def find_binary(package: str) -> str:
    """Return the path of a program that its Debian package is named after."""
    if found := shutil.which(package, path="/usr/bin:/usr/local/bin:/usr/sbin:/sbin"):
        return found
    raise RuntimeError(f"{package} is missing: apt-get install -y --no-install-recommends {package}")
