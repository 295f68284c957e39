"""What the lab changes on this computer itself, outside its namespaces; each change is recorded first and undone.

Labs that are up side by side share these changes: what was before the first of them is kept in one place, and the last
one that goes puts it back.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from pathlib import Path

from tests.lab import cgroups
from tests.lab.settings import KINDS, Settings
from tests.lab.tools import LabError, run

_PROGRAMS = {
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ARM64 = "qemu-aarch64"
_NAMESPACES = Path("/run/netns")
_BEFORE = Path("/run/posture-lab.json")  # gone when this computer restarts, as are the changes
_COMMENT = "posture lab"


def check_tools() -> None:
    """Raise LabError with all that this computer lacks; changes nothing."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: network namespaces, mounts and machines (sudo make lab)")
    missing = sorted({package for program, package in _PROGRAMS.items() if not shutil.which(program)})
    if not Path(f"/usr/lib/binfmt.d/{_ARM64}.conf").exists() and not (_BINFMT / _ARM64).exists():
        missing.append("qemu-user-static")
    if missing:
        raise LabError(f"the lab needs packages that are not here: apt-get install -y {' '.join(missing)}")
    try:
        run("unshare", "--net", "--mount", "true")
    except LabError as error:
        raise LabError(f"this computer gives no namespaces ({error}): a container needs --privileged") from None


def check_free(settings: Settings) -> None:
    """Raise LabError with all that is in the way of a new lab; changes nothing."""
    clashes = list(_clashes(settings))
    if clashes:
        raise LabError(
            "the lab would get in the way of what is here: "
            + "; ".join(clashes)
            + ". Choose others with POSTURE_LAB_NAME, POSTURE_LAB_SUBNET and POSTURE_LAB_UPLINK (docs/lab.md)"
        )


def _clashes(settings: Settings) -> Iterator[str]:
    names = {settings.name, *(settings.namespace(machine) for machine in KINDS)}
    for name in sorted(names & set(namespaces())):
        yield f"there is a network namespace {name}"
    links = {link["ifname"] for link in json.loads(run("ip", "-j", "link"))}
    if f"{settings.name}-up" in links:
        yield f"there is a link {settings.name}-up"
    for route in json.loads(run("ip", "-j", "-4", "route", "show", "table", "all")):
        target = ip_network(route["dst"].replace("default", "0.0.0.0/0"), strict=False)
        for network in (settings.subnet, settings.uplink):
            if isinstance(target, IPv4Network) and target.prefixlen and target.overlaps(network):
                yield f"{network} overlaps the route to {target} by {route.get('dev', 'another link')}"
    for server in nameservers():
        for network in settings.networks:
            if server in network:
                yield f"{network} has this computer's name server {server} in it"
    for group in cgroups.exist(settings.name):
        yield f"there is a cgroup {group}"


def namespaces() -> list[str]:
    """Return the names of the network namespaces."""
    return [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip()]


def nameservers() -> list[IPv4Address]:
    """Return the name servers that machines can use: not a resolver that listens on this computer's loopback."""
    files = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
    words = [line.split() for file in files if Path(file).exists() for line in Path(file).read_text().splitlines()]
    servers = [
        ip_address(line[1]) for line in words if len(line) > 1 and line[0] == "nameserver" and "%" not in line[1]
    ]
    return [server for server in servers if isinstance(server, IPv4Address) and not server.is_loopback]


def prepare(settings: Settings) -> None:
    """Let packets through to the lab's uplink and back, arm64 programs run, and machines have cgroup controllers."""
    with _shared() as before:
        if not os.path.ismount(_NAMESPACES):
            before.setdefault("namespaces", "absent")
        controllers = cgroups.absent_at_top()
        before.setdefault("controllers", " ".join(controllers))
        before.setdefault("ip_forward", _FORWARD.read_text().strip())
        if not (_BINFMT / "register").exists():
            before.setdefault("binfmt", "absent")
        if not (_BINFMT / _ARM64).exists():
            before.setdefault(_ARM64, "absent")
        _save(before)
        cgroups.pass_on_at_top(controllers)
        _FORWARD.write_text("1")
        for table, *rule in _rules(settings):
            run("iptables", "-w", "-t", table, "-I", *rule)
        if not (_BINFMT / "register").exists():
            run("mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT)
        if not (_BINFMT / _ARM64).exists():
            (_BINFMT / "register").write_bytes(Path(f"/usr/lib/binfmt.d/{_ARM64}.conf").read_bytes())


def restore(settings: Settings) -> None:
    """Undo what `prepare` did, as far as it came; what other labs need too is left to the last of them."""
    with _shared() as before:
        for table, *rule in _rules(settings):
            while _has_rule(table, rule):
                run("iptables", "-w", "-t", table, "-D", *rule)
        if _COMMENT in run("iptables-save"):
            return
        if "ip_forward" in before:
            _FORWARD.write_text(before["ip_forward"])
        cgroups.keep_at_top(before.get("controllers", "").split())
        if _ARM64 in before and (_BINFMT / _ARM64).exists():
            (_BINFMT / _ARM64).write_text("-1")
        if "binfmt" in before and (_BINFMT / "register").exists():
            run("umount", _BINFMT)
        if "namespaces" in before and os.path.ismount(_NAMESPACES) and not namespaces():
            run("umount", _NAMESPACES)
            _NAMESPACES.rmdir()
        _BEFORE.unlink(missing_ok=True)


@contextmanager
def _shared() -> Iterator[dict[str, str]]:
    """Yield how this computer was before the first lab, as far as it is known, while no other lab changes it."""
    place = os.open(_BEFORE.parent, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield json.loads(_BEFORE.read_text()) if _BEFORE.exists() else {}
    finally:
        os.close(place)


def _save(before: Mapping[str, str]) -> None:
    part = _BEFORE.with_suffix(".part")
    part.write_text(json.dumps(before))
    part.rename(_BEFORE)


def _rules(settings: Settings) -> list[tuple[str, ...]]:
    link = f"{settings.name}-up"
    comment = ("-m", "comment", "--comment", f"{_COMMENT} {settings.name}")
    return [
        ("nat", "POSTROUTING", "-s", str(settings.uplink), "!", "-o", link, *comment, "-j", "MASQUERADE"),
        ("filter", "FORWARD", "-i", link, *comment, "-j", "ACCEPT"),
        ("filter", "FORWARD", "-o", link, *comment, "-j", "ACCEPT"),
    ]


def _has_rule(table: str, rule: list[str]) -> bool:
    try:
        run("iptables", "-w", "-t", table, "-C", *rule)
    except LabError:
        return False
    return True
