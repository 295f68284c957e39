"""docker/compose.yml on the machine with Docker, and one more analyzer beside those that it runs."""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.lab.builder import copy
from tests.lab.machine import Machine
from tests.lab.registry import Registry
from tests.support.waiting import wait_until

_HTTP_PORT = 19310


class Compose:
    """`docker compose` on the laptop with compose.yml, which needs no changes but where its images are from."""

    def __init__(self, laptop: Machine, registry: Registry, checkout: Path) -> None:
        self.laptop = laptop
        self.directory = "/root/developer"
        for part in ("docker", "roles/database/files"):
            laptop.ssh("mkdir", "-p", f"{self.directory}/{part}")
        for part in ("requirements", "analyzer", "common", "offloader", "publisher", "plugins"):
            copy(checkout / part, laptop.root / f"root/developer/{part}")
        copy(checkout / "docker", laptop.root / "root/developer/docker")
        copy(checkout / "roles/database/files", laptop.root / "root/developer/roles/database/files")
        for file in ("pyproject.toml", "LICENSE"):
            copy(checkout / file, laptop.root / "root/developer" / file)
        images = {"BASE_IMAGE": "python:3.11", "BROKER_IMAGE": "broker", "DATABASE_IMAGE": "database"}
        values = {name: f"{registry.local}/{value}" for name, value in images.items()}
        laptop.write("root/developer/docker/.env", "".join(f"{name}={value}\n" for name, value in values.items()))
        # The machines' way to the package index signs https anew.
        self.options = "CA_FILE=/etc/ssl/certs/ca-certificates.crt"

    def run(self, command: str, *, timeout: float = 60) -> str:
        """Run one of compose's commands."""
        return self.laptop.shell(
            f"cd {self.directory} && {self.options} docker compose -f docker/compose.yml {command}", timeout=timeout
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the table."""
        query = "SELECT coalesce(json_agg(r), '[]') FROM posture_results AS r"
        answer = self.run(f'exec -T database psql postgresql://posture:posture@127.0.0.1/posture -tAc "{query}"')
        rows: list[dict[str, Any]] = json.loads(answer)
        return rows

    def publish(self, topic: str, data: bytes) -> None:
        """Publish an image as a camera does that knows nothing but MQTT."""
        (self.laptop.root / "root/developer/shot").write_bytes(data)
        self.run(f"exec -T broker mosquitto_pub -t {topic} -q 1 -s <shot")

    def remove(self) -> None:
        """Take away containers, volumes, the image that it built, and the files."""
        self.run("down --volumes --rmi local --timeout 5", timeout=100)
        self.laptop.ssh("rm", "-r", self.directory)

    @contextmanager
    def analyzer(self, image: str) -> Iterator[float]:
        """Run one more analyzer, restricted as in a Job; yield the seconds from `docker run` until it is ready."""
        name = f"analyzer-{uuid.uuid4().hex[:8]}"
        environment = {"POSTURE_STREAM": "pi9", "POSTURE_MQTT_HOST": "broker"}
        environment["POSTURE_DATABASE_URL"] = "postgresql://posture:posture@database/posture"
        settings = [f"--env={name}={value}" for name, value in environment.items()]
        restricted = ["--read-only", "--cap-drop=ALL", "--user=10001:10001", "--security-opt=no-new-privileges"]
        options = [
            f"--name={name}",
            "--network=posture_default",
            f"--publish={_HTTP_PORT}:9310",
            *restricted,
            *settings,
        ]
        began = time.monotonic()
        self.laptop.ssh("docker", "run", "--detach", *options, image)
        try:
            logs = ("docker", "logs", name)
            wait_until(self._is_ready, timeout=30, describe=lambda: f"ready: {self.laptop.ssh(*logs)}")
            yield time.monotonic() - began
        finally:
            self.laptop.ssh("docker", "rm", "--force", "--volumes", name)

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"http://{self.laptop.address}:{_HTTP_PORT}/readyz", timeout=1).ok
        except requests.RequestException:
            return False
