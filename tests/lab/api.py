"""The Kubernetes API over plain HTTPS, as much of it as the lab and its tests need."""

import base64
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.lab.tools import LabError, run

Object = dict[str, Any]


class Api:
    """A cluster, as a kubeconfig names it: with a client certificate or a token. Connections are kept.

    With `impersonate`, its administrator asks in that one's name.
    """

    def __init__(self, kubeconfig: Path, *, impersonate: str = "") -> None:
        # kubectl reads every form of it; the lab's own is JSON already.
        text = kubeconfig.read_text()
        if not text.startswith("{"):
            text = run(
                "kubectl",
                "config",
                "view",
                "--raw",
                "--minify",
                "--flatten",
                "-o",
                "json",
                f"--kubeconfig={kubeconfig}",
            )
        content = json.loads(text)
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        self._server = cluster["server"].rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        if impersonate:
            self._session.headers["Impersonate-User"] = impersonate
        self._files = tempfile.TemporaryDirectory(prefix="posture-lab-")
        self._session.verify = self._file("ca", cluster["certificate-authority-data"])
        if "token" in user:
            self._session.headers["Authorization"] = f"Bearer {user['token']}"
        else:
            key = self._file("key", user["client-key-data"])
            self._session.cert = (self._file("crt", user["client-certificate-data"]), key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()
        self._files.cleanup()

    def get(self, path: str, **query: str) -> Object:
        """Return what is at a path such as /api/v1/nodes."""
        answer: Object = self._ask("GET", path, params=query).json()
        return answer

    def text(self, path: str, **query: str) -> str:
        """Return what is at a path that is no object: a log, a file behind the API server's proxy."""
        return self._ask("GET", path, params=query).text

    def create(self, path: str, content: Object) -> Object:
        """Create an object in a collection and return it."""
        answer: Object = self._ask("POST", path, content=content).json()
        return answer

    def change(self, path: str, content: Object) -> None:
        """Merge `content` into an object; null takes a key away."""
        self._ask("PATCH", path, content=content)

    def delete(self, path: str) -> None:
        """Delete an object and what hangs on it."""
        self._ask("DELETE", path, content={"propagationPolicy": "Background"})

    def exists(self, path: str) -> bool:
        """Whether there is an object at the path."""
        try:
            self.get(path)
        except LookupError:
            return False
        return True

    def ready_nodes(self) -> set[str]:
        """Return the names of the Ready nodes."""
        return {
            node["metadata"]["name"]
            for node in self.get("/api/v1/nodes")["items"]
            for condition in node["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        }

    def _ask(
        self, verb: str, path: str, *, params: Mapping[str, str] | None = None, content: Object | None = None
    ) -> requests.Response:
        body = None if content is None else json.dumps(content)
        kind = "application/merge-patch+json" if verb == "PATCH" else "application/json"
        answer = self._session.request(
            verb, self._server + path, params=params, data=body, headers={"Content-Type": kind}, timeout=10
        )
        if answer.status_code == 404:
            raise LookupError(f"{path}: not found")
        if not answer.ok:
            raise LabError(f"{verb} {path}: {answer.status_code} {answer.text[:500]}")
        return answer

    def _file(self, name: str, encoded: str) -> str:
        path = Path(self._files.name) / name
        path.touch(mode=0o600)
        path.write_bytes(base64.b64decode(encoded))
        return os.fspath(path)


def wait_for(condition: Callable[[], bool], *, timeout: float, what: str) -> None:
    """Return when the condition holds; an API server that is not there yet, or not yet complete, is waited for too."""
    deadline = time.monotonic() + timeout
    problem = ""
    while True:
        try:
            if condition():
                return
        except (requests.RequestException, LookupError, LabError) as error:
            problem = f": {error}"
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout:g} s: {what}{problem}")
        time.sleep(0.1)
