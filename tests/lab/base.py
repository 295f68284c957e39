"""Base systems: what a machine's disk holds before it is first switched on, as read-only layers in the cache.

A system is made by debootstrap; a layer on top of it holds what apt, or the Ansible play of the node machines, changed.
"""

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tests.lab import cache, images, kubernetes
from tests.lab.settings import Settings
from tests.lab.tools import build, step

_HERE = Path(__file__).parent
_INCLUDE = (
    "systemd-sysv,dbus,openssh-server,sudo,ca-certificates"  # what an empty Debian of a cloud or a Pi has as well
)
_SYSTEMS = {"bookworm": ("bookworm", "amd64"), "bookworm-arm64": ("bookworm", "arm64"), "trixie": ("trixie", "amd64")}
_MANAGED = "python3 python3-apt iproute2"  # what Ansible wants to find
_DOCKER = "iptables docker.io docker-cli docker-buildx docker-compose docker-registry python3-requests qemu-user-static"
_APT_LAYERS = {
    "machine": ("bookworm", _MANAGED),
    "machine-arm64": ("bookworm-arm64", _MANAGED),
    "fresh": ("bookworm", "git make"),
    "laptop": ("trixie", f"{_MANAGED} {_DOCKER}"),
    # No machine's: what the tests make images from, as they do from machine-arm64 (containers.py).
    "python": ("machine", "python3-venv"),
    "services": ("trixie", "mosquitto mosquitto-clients postgresql"),
}

_CGROUPS = _HERE / "node/files/units/lab-cgroups.service"
_DAEMON = '{"features": {"containerd-snapshotter": true}}\n'

# Runs in a mount namespace of its own, so the mounts end with it.
_IN_LAYER = """
set -e
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" "$ROOT"
mount -t proc proc "$ROOT/proc"
printf '#!/bin/sh\\nexit 101\\n' >"$ROOT/usr/sbin/policy-rc.d"
chmod 755 "$ROOT/usr/sbin/policy-rc.d"
cat /etc/resolv.conf >"$ROOT/etc/resolv.conf"
{command}
chroot "$ROOT" apt-get clean
# Package lists that were never read, not ones that are new and empty: Ansible goes by their date.
rm -rf "$ROOT"/var/lib/apt/lists/* "$ROOT/var/lib/apt/periodic/update-success-stamp"
touch --date=@0 "$ROOT/var/lib/apt/lists"
rm -rf "$ROOT/usr/sbin/policy-rc.d" "$ROOT"/etc/ssh/ssh_host_*
"""
_APT = """
export DEBIAN_FRONTEND=noninteractive
chroot "$ROOT" apt-get update
chroot "$ROOT" apt-get install -y --no-install-recommends {packages}
"""
# qemu-user does not know the system calls that systemd mounts credentials with; nobody gives these units any.
_EMULATED = """
for unit in $(cd "$ROOT/usr/lib/systemd/system" && grep -l '^LoadCredential=' *.service); do
    mkdir -p "$ROOT/etc/systemd/system/$unit.d"
    printf '[Service]\\nLoadCredential=\\nSetCredential=\\n' >"$ROOT/etc/systemd/system/$unit.d/emulated.conf"
done
"""
_PLAY = """
"$PLAYER" --connection community.general.chroot --inventory "$ROOT," --extra-vars "binaries=$BINARIES" "$PLAY"
"""


def layers(base: str, settings: Settings) -> list[Path]:
    """Return the layers of a base, topmost first; makes those that are not in the cache, which takes minutes."""
    if base in _SYSTEMS:
        return [_system(base, settings)]
    if base == "node":
        return _node(settings)
    parent, packages = _APT_LAYERS[base]
    command = _APT.format(packages=packages) + (_EMULATED if parent.endswith("arm64") else "")
    if base == "laptop":
        return _on_top(base, layers(parent, settings), command, key=cache.key_of(_CGROUPS, _DAEMON), finish=_add_engine)
    return _on_top(base, layers(parent, settings), command)


def _add_engine(tree: Path) -> None:
    """Let Docker use the machine's cgroups, and keep images of several architectures."""
    units = tree / "etc/systemd/system"
    (units / "sysinit.target.wants").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_CGROUPS, units / _CGROUPS.name)
    (units / "sysinit.target.wants" / _CGROUPS.name).symlink_to(f"/etc/systemd/system/{_CGROUPS.name}")
    (tree / "etc/docker").mkdir(parents=True, exist_ok=True)
    (tree / "etc/docker/daemon.json").write_text(_DAEMON)


def _system(name: str, settings: Settings) -> Path:
    suite, architecture = _SYSTEMS[name]

    def make(part: Path) -> None:
        tree = part / "tree"
        log = cache.log_of(name)
        log.unlink(missing_ok=True)
        options = ("--variant=minbase", f"--arch={architecture}", f"--include={_INCLUDE}")
        with step(f"Installing Debian {suite} for {architecture}", note=f"output in {log}"):
            build("debootstrap", *options, suite, tree, *filter(None, [settings.mirror]), log=log)
        _add_updates(tree / "etc/apt/sources.list", suite)
        for left in [*(tree / "var/cache/apt/archives").glob("*.deb"), *(tree / "etc/ssh").glob("ssh_host_*")]:
            left.unlink()

    return cache.entry(name, cache.key_of(settings.mirror, suite, architecture, _INCLUDE), make) / "tree"


def _add_updates(sources: Path, suite: str) -> None:
    """Add the suite's updates to the sources that debootstrap wrote: one line that names the mirror."""
    mirror = sources.read_text().split()[1]
    lines = [f"deb {mirror} {suite} main", f"deb {mirror} {suite}-updates main"]
    sources.write_text("\n".join([*lines, f"deb {mirror}-security {suite}-security main", ""]))


def _node(settings: Settings) -> list[Path]:
    binaries = kubernetes.binaries()
    environment: dict[str, str | Path] = {
        "ANSIBLE_CONFIG": _HERE.parents[1] / "ansible.cfg",
        "LC_ALL": "C.UTF-8",
        "PLAYER": Path(sys.executable).with_name("ansible-playbook"),
        "PLAY": _HERE / "node/play.yml",
        "BINARIES": ":".join(map(str, binaries)),
    }

    parents = layers("machine", settings)

    def finish(tree: Path) -> None:
        images.write(tree / images.PLACE, images.BUSYBOX, tree / "usr/bin/busybox")

    key = cache.key_of(_HERE / "node", _HERE / "images.py", *(path.name for path in binaries))
    return _on_top("node", parents, _PLAY, environment=environment, key=key, finish=finish)


def _on_top(
    name: str,
    parents: Sequence[Path],
    command: str,
    *,
    environment: Mapping[str, str | Path] = MappingProxyType({}),
    key: str = "",
    finish: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Return the parents with a layer on top that holds what `command` changes in "$ROOT"."""
    script = _IN_LAYER.replace("{command}", command)

    def make(part: Path) -> None:
        log = cache.log_of(name)
        log.unlink(missing_ok=True)
        places = {"UPPER": part / "tree", "WORK": part / "work", "ROOT": part / "root"}
        for place in places.values():
            place.mkdir()
        lower = ":".join(map(str, parents))
        variables = os.environ | {name: str(value) for name, value in {"LOWER": lower, **places, **environment}.items()}
        with step(f"Installing the layer {name}", note=f"output in {log}"):
            build("sh", "-c", script, log=log, env=variables)
        if finish:
            finish(part / "tree")
        places["ROOT"].rmdir()
        shutil.rmtree(places["WORK"])

    full_key = cache.key_of(script, key, *(parent.parent.name for parent in parents))
    return [cache.entry(name, full_key, make) / "tree", *parents]


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(*layers(wanted, Settings()), sep="\n")
