"""Images for the tests, from Debian's own packages: what a Python image, a broker and a database are elsewhere.

There need be no other registry than the lab's. Their one large layer is the lab's cached base system, packed once.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.lab import base, cache
from tests.lab.registry import Image, Layer, Registry
from tests.lab.settings import Settings
from tests.lab.tools import build, step

# Left out of a layer: what no program here reads, and PostgreSQL's compiler.
_LEFT_OUT = (
    *("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "var/lib/apt/lists/*", "var/cache/*"),
    *("usr/lib/llvm*", "usr/lib/*/libLLVM*", "usr/lib/*/libz3*"),
)
_PACK = """
set -e
mkdir "$PART/root"
mount -t overlay overlay -o "lowerdir=$LOWER" "$PART/root"
tar --create --directory="$PART/root" --one-file-system {left_out} . >"$PART/layer.tar"
gzip -1 <"$PART/layer.tar" >"$PART/layer.tar.gz"
umount "$PART/root"
rmdir "$PART/root"
sum() { sha256sum <"$PART/$1" | cut -c -64; }
printf '{"digest": "sha256:%s", "diff_id": "sha256:%s"}' "$(sum layer.tar.gz)" "$(sum layer.tar)" >"$PART/digests.json"
rm "$PART/layer.tar"
"""
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_BROKER = """#!/bin/sh
# As eclipse-mosquitto does: the volume belongs to the broker's user.
chown -R mosquitto: /mosquitto/data
exec mosquitto -c /mosquitto/config/mosquitto.conf
"""
_DATABASE = """#!/bin/sh
# As the image postgres does: a new database gets its owner, and what is in docker-entrypoint-initdb.d.
set -e
data=/var/lib/postgresql/data
as_postgres="setpriv --reuid=postgres --regid=postgres --init-groups"
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
mkdir -p /run/postgresql
chown postgres: /run/postgresql "$data"
if [ ! -s "$data/PG_VERSION" ]; then
    printf %s "$POSTGRES_PASSWORD" >/run/password
    chown postgres: /run/password
    $as_postgres initdb --pgdata="$data" --username="$POSTGRES_USER" --pwfile=/run/password --locale=C.UTF-8 >/dev/null
    echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
    $as_postgres pg_ctl --pgdata="$data" --options="-c listen_addresses=''" --wait start >/dev/null
    $as_postgres createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    for file in /docker-entrypoint-initdb.d/*.sql; do
        $as_postgres psql --quiet --username="$POSTGRES_USER" --set=ON_ERROR_STOP=1 "$POSTGRES_DB" <"$file"
    done
    $as_postgres pg_ctl --pgdata="$data" --wait stop >/dev/null
fi
exec $as_postgres postgres -D "$data" -c 'listen_addresses=*'
"""


def push_all(registry: Registry, settings: Settings) -> None:
    """Put python:3.11, broker and database there, and a python:3.11 whose arm64 half has no program."""
    amd64, arm64 = _packed("python", settings), _packed("machine-arm64", settings)
    plain = {"Env": [_PATH], "Cmd": ["python3"]}
    registry.push("python", "3.11", [Image("amd64", (amd64,), plain), Image("arm64", (arm64,), plain)])
    empty = _scripts({"etc/empty": "this machine has no program that could run\n"})
    registry.push(
        "python", "3.11-arm64-without-programs", [Image("amd64", (amd64,), plain), Image("arm64", (empty,), plain)]
    )
    services = _packed("services", settings)
    scripts = _scripts({"usr/local/bin/broker": _BROKER, "usr/local/bin/database": _DATABASE})
    for name in ("broker", "database"):
        config = {"Env": [_PATH], "Entrypoint": [f"/usr/local/bin/{name}"]}
        registry.push(name, "latest", [Image("amd64", (services, scripts), config)])


def _packed(name: str, settings: Settings) -> Layer:
    """Return a base system as one layer, from the cache."""
    layers = base.layers(name, settings)
    left_out = " ".join(f"--exclude='./{path}'" for path in _LEFT_OUT)
    script = _PACK.replace("{left_out}", left_out)

    def make(part: Path) -> None:
        variables = {"PATH": _PATH.removeprefix("PATH="), "PART": str(part), "LOWER": ":".join(map(str, layers))}
        log = cache.log_of(f"image-{name}")
        with step(f"Packing {name} for images", note=f"output in {log}"):
            build("sh", "-c", script, log=log, env=variables)

    entry = cache.entry(f"image-{name}", cache.key_of(script, *(layer.parent.name for layer in layers)), make)
    digests: dict[str, str] = json.loads((entry / "digests.json").read_text())
    return Layer(entry / "layer.tar.gz", **digests)


def _scripts(files: Mapping[str, str]) -> Layer:
    """Return a layer of a few files, each of which may be run."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), 0o755
            archive.addfile(info, io.BytesIO(text.encode()))
    plain = buffer.getvalue()
    packed = gzip.compress(plain, mtime=0)
    digest = hashlib.sha256(packed).hexdigest()
    file = (
        cache.entry("image-scripts", digest[:12], lambda part: _write(part / "layer.tar.gz", packed)) / "layer.tar.gz"
    )
    return Layer(file, f"sha256:{digest}", f"sha256:{hashlib.sha256(plain).hexdigest()}")


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)
