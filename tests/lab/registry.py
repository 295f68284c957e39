"""A container registry on a machine of the lab, and what the tests read from it and put there without an engine."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import requests

from tests.lab.machine import Machine
from tests.support.waiting import wait_until

Object = dict[str, Any]
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_DOCKER = (
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(frozen=True)
class Layer:
    """A layer as a registry stores it; `diff_id` is the digest of the unpacked archive."""

    file: Path
    digest: str
    diff_id: str


@dataclass(frozen=True)
class Image:
    """An image for one architecture."""

    architecture: str
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]


class Registry:
    """docker-registry as a unit of its own on a machine; gone with the `with` block, its images with it."""

    def __init__(self, machine: Machine, port: int, *, storage: str = "", users: str = "") -> None:
        self.machine = machine
        self.port = port
        self.local = f"127.0.0.1:{port}"  # as the machine itself names it, which Docker takes for plain http
        self.address = f"{machine.address}:{port}"
        self._unit = f"lab-registry-{port}"
        self._storage = storage or f"/var/lib/{self._unit}"
        self._users = users
        self._pulling: list[Path] = []
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> "Registry":
        self.start()
        return self

    def start(self) -> None:
        """Start it where it does not run already, and return when it answers."""
        if self._answers():
            return
        config: Object = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": self._storage}},
            "http": {"addr": f":{self.port}"},
        }
        if self._users:
            self.machine.write(f"etc/{self._unit}.htpasswd", self._users)
            config["auth"] = {"htpasswd": {"realm": "lab", "path": f"/etc/{self._unit}.htpasswd"}}
        self.machine.write(f"etc/{self._unit}.yml", json.dumps(config))
        self.machine.shell(f"systemd-run --quiet --unit {self._unit} docker-registry serve /etc/{self._unit}.yml")
        wait_until(self._answers, timeout=20, describe=f"the registry {self.address} answers")

    def __exit__(self, *_: object) -> None:
        self._session.close()
        for place in self._pulling:
            shutil.rmtree(place)
        self.machine.shell(f"systemctl stop {self._unit}; rm -rf {self._storage} /etc/{self._unit}.*")

    def let_pull(self, nodes: Iterable[Machine]) -> None:
        """Let nodes pull by its local name, under which the images are recorded, over plain http."""
        for node in nodes:
            place = f"etc/containerd/certs.d/{self.local}"
            node.write(f"{place}/hosts.toml", f'[host."http://{self.address}"]\n')
            self._pulling.append(node.root / place)

    def _answers(self) -> bool:
        try:
            return self._session.get(f"http://{self.address}/v2/", timeout=2).status_code in {200, 401}
        except requests.RequestException:
            return False

    def tags(self, name: str) -> list[str]:
        """Return the tags of a repository; none where there is no such repository."""
        answer = self._session.get(f"http://{self.address}/v2/{name}/tags/list", timeout=10)
        return answer.json().get("tags") or [] if answer.ok else []

    def manifest(self, name: str, reference: str) -> tuple[str, Object]:
        """Return the digest and the content of an index or a manifest."""
        headers = {"Accept": f"{_INDEX}, {_MANIFEST}, {_DOCKER}"}
        answer = self._session.get(
            f"http://{self.address}/v2/{name}/manifests/{reference}", headers=headers, timeout=10
        )
        answer.raise_for_status()
        content: Object = json.loads(answer.content)
        return f"sha256:{hashlib.sha256(answer.content).hexdigest()}", content

    def images(self, name: str, tag: str = "latest") -> dict[str, Object]:
        """Return the manifest of each platform of an image."""
        _, index = self.manifest(name, tag)
        return {
            f"{each['platform']['os']}/{each['platform']['architecture']}": self.manifest(name, each["digest"])[1]
            for each in index["manifests"]
        }

    @contextmanager
    def blob(self, name: str, digest: str) -> Iterator[BinaryIO]:
        """Yield a layer or a configuration, to be read once."""
        address = f"http://{self.address}/v2/{name}/blobs/{digest}"
        with self._session.get(address, stream=True, timeout=60) as answer:
            answer.raise_for_status()
            yield cast("BinaryIO", answer.raw)

    def push(self, name: str, tag: str, images: Iterable[Image]) -> str:
        """Put an image for several architectures there and return its digest."""
        entries = []
        for image in images:
            config = json.dumps(
                {
                    "architecture": image.architecture,
                    "os": "linux",
                    "config": dict(image.config),
                    "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in image.layers]},
                }
            ).encode()
            for layer in image.layers:
                with layer.file.open("rb") as content:
                    self._push_blob(name, layer.digest, content)
            layers = [_descriptor(_LAYER, layer.digest, layer.file.stat().st_size) for layer in image.layers]
            manifest = json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": _MANIFEST,
                    "config": _descriptor(_CONFIG, self._push_blob(name, _digest(config), config), len(config)),
                    "layers": layers,
                }
            ).encode()
            digest = self._push_manifest(name, _digest(manifest), _MANIFEST, manifest)
            platform = {"architecture": image.architecture, "os": "linux"}
            entries.append({**_descriptor(_MANIFEST, digest, len(manifest)), "platform": platform})
        index = json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}).encode()
        self._push_manifest(name, tag, _INDEX, index)
        return _digest(index)

    def _push_blob(self, name: str, digest: str, content: bytes | BinaryIO) -> str:
        place = f"http://{self.address}/v2/{name}/blobs"
        if not self._session.head(f"{place}/{digest}", timeout=10).ok:
            start = self._session.post(f"{place}/uploads/", timeout=10)
            start.raise_for_status()
            url = start.headers["Location"]
            self._session.put(
                url,
                params={"digest": digest},
                data=content,
                headers={"Content-Type": "application/octet-stream"},
                timeout=120,
            ).raise_for_status()
        return digest

    def _push_manifest(self, name: str, reference: str, kind: str, content: bytes) -> str:
        url = f"http://{self.address}/v2/{name}/manifests/{reference}"
        self._session.put(url, data=content, headers={"Content-Type": kind}, timeout=30).raise_for_status()
        return _digest(content)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(kind: str, digest: str, size: int) -> Object:
    return {"mediaType": kind, "digest": digest, "size": size}
