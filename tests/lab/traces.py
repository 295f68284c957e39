"""What a lab could leave behind on this computer, as lists that can be compared."""

import contextlib
import json
from pathlib import Path

from tests.lab import host
from tests.lab.tools import run

# Counters and clocks, which change by themselves.
_VOLATILE = (
    *("dentry-state", "file-nr", "inode-nr", "inode-state", "aio-nr", "nr", "ns_last_pid", "nf_conntrack_count"),
    *("random", "pty", "bpf_stats_enabled", "nr_open_files", "quota", "binfmt_misc", "mqueue"),
)


def traces(name: str) -> dict[str, list[str]]:
    """Return, by kind, everything of the host's that a lab called `name` makes or might make."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {
        "processes": _processes(name),
        "network namespaces": sorted(host.namespaces()),
        "links": sorted(link["ifname"] for link in json.loads(run("ip", "-j", "link"))),
        "routes": sorted(run("ip", "route", "show", "table", "all").splitlines()),
        "iptables rules": [line for line in run("iptables-save").splitlines() if line.startswith("-A")],
        "mounts": sorted(f"{words[4]} {words[3]}" for words in mounts),
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").rglob("*") if path.name == name),
        "binfmt": sorted(path.name for path in Path("/proc/sys/fs/binfmt_misc").glob("*")),
        "sysctls": _sysctls(),
        "run": sorted(str(path) for path in Path("/run/systemd/nspawn").rglob("*") if name in path.name),
    }


def _processes(name: str) -> list[str]:
    """Return the commands that a lab's name stands in, and those in its cgroups."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"/{name}/" in (process / "cgroup").read_text() or f"--machine={name}-" in command:
                found.append(command)
    return sorted(found)


def _sysctls() -> list[str]:
    found = []
    for path in Path("/proc/sys").rglob("*"):
        if path.is_file() and not any(part in _VOLATILE for part in path.parts) and "/neigh/" not in str(path):
            with contextlib.suppress(OSError):
                found.append(f"{path}={path.read_text().strip()}")
    return sorted(found)
