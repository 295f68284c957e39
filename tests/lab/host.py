"""What the lab changes on this computer itself, outside its namespaces; each change is recorded first and undone."""

import json
import os
import shutil
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from pathlib import Path

from tests.lab import cgroups
from tests.lab.record import Record
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


def prepare(record: Record) -> None:
    """Let packets through to the lab's uplink and back, arm64 programs run, and machines have cgroup controllers."""
    if not os.path.ismount(_NAMESPACES):
        record.remember("namespaces", "absent")
    controllers = cgroups.absent_at_top()
    record.remember("controllers", " ".join(controllers))
    cgroups.pass_on_at_top(controllers)
    record.remember("ip_forward", _FORWARD.read_text().strip())
    _FORWARD.write_text("1")
    for table, *rule in _rules(record.settings):
        run("iptables", "-w", "-t", table, "-I", *rule)
    if not (_BINFMT / "register").exists():
        record.remember("binfmt", "absent")
        run("mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT)
    if not (_BINFMT / _ARM64).exists():
        record.remember(_ARM64, "absent")
        (_BINFMT / "register").write_bytes(Path(f"/usr/lib/binfmt.d/{_ARM64}.conf").read_bytes())


def restore(record: Record) -> None:
    """Undo what `prepare` did, as far as it came."""
    for table, *rule in _rules(record.settings):
        while _has_rule(table, rule):
            run("iptables", "-w", "-t", table, "-D", *rule)
    if "ip_forward" in record.before:
        _FORWARD.write_text(record.before["ip_forward"])
    cgroups.keep_at_top(record.before.get("controllers", "").split())
    if _ARM64 in record.before and (_BINFMT / _ARM64).exists():
        (_BINFMT / _ARM64).write_text("-1")
    if "binfmt" in record.before and (_BINFMT / "register").exists():
        run("umount", _BINFMT)
    if "namespaces" in record.before and os.path.ismount(_NAMESPACES) and not namespaces():
        run("umount", _NAMESPACES)
        _NAMESPACES.rmdir()


def _rules(settings: Settings) -> list[tuple[str, ...]]:
    link = f"{settings.name}-up"
    comment = ("-m", "comment", "--comment", f"posture lab {settings.name}")
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
