"""Container images without a container engine: a static busybox, as `docker save` would write it."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

BUSYBOX = "localhost/busybox:1"  # what the nodes have from the start; their pods' sandboxes run it too
PLACE = "usr/share/posture-lab/busybox.tar"  # where it is in a node's base
_COMMANDS = ("sh", "cat", "date", "echo", "httpd", "nc", "nslookup", "sleep", "wget")


def write(target: Path, name: str, busybox: Path) -> None:
    """Write an amd64 image of the static busybox, under the given name, to the tar file `target`."""
    layer = _layer(busybox)
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{layer_digest}/layer.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w") as image:
        for member, content in ((config_name, config), (layer_name, layer), ("manifest.json", manifest)):
            _add(image, member, content)


def _layer(busybox: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for directory in ("bin", "etc", "tmp"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            layer.addfile(info)
        _add(layer, "bin/busybox", busybox.read_bytes(), mode=0o755)
        for command in _COMMANDS:
            info = tarfile.TarInfo(f"bin/{command}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(info)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))
