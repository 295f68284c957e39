"""The cgroup of each machine, in all hierarchies of the host: its processes are the machine's, whoever started them.

Version 1 and hybrid hosts have a hierarchy for each controller; version 2 has one, in which the lab only adds its own
branch and lets the controllers through to it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.tools import LabError

_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")  # that a kubelet wants, in version 2


def make(name: str, machine: str) -> tuple[list[Path], list[Path]]:
    """Make a machine's cgroups and return the files to enter them by: for what switches it on, and for the machine."""
    switch, inside = [], []
    for top, version in _hierarchies():
        own = top / name / machine
        for group in (top / name, own, own / "switch", own / "machine"):
            group.mkdir(exist_ok=True)
            if (group / "cpuset.cpus").exists() and version == "cgroup":
                for file in ("cpuset.cpus", "cpuset.mems"):  # empty at first: then nobody may enter
                    (group / file).write_text((group.parent / file).read_text())
        if version == "cgroup2":
            for group in (top / name, own):
                _pass_on(group, _absent(group))
        switch.append(own / "switch/cgroup.procs")
        inside.append(own / "machine/cgroup.procs")
    return switch, inside


def absent_at_top() -> list[str]:
    """Return the controllers that a host of version 2 would have to pass on from its top."""
    return [name for top, version in _hierarchies() if version == "cgroup2" for name in _absent(top)]


def pass_on_at_top(controllers: Sequence[str]) -> None:
    """Pass these controllers on from the host's top."""
    for top, version in _hierarchies():
        if version == "cgroup2":
            _pass_on(top, controllers)


def keep_at_top(controllers: Sequence[str]) -> None:
    """Undo `pass_on_at_top`, where nobody else has come to need the controllers."""
    for top, version in _hierarchies():
        for name in controllers if version == "cgroup2" else ():
            with contextlib.suppress(OSError):
                (top / "cgroup.subtree_control").write_text(f"-{name}")


def processes(name: str, machine: str = "") -> set[int]:
    """Return the processes of a machine, or of the whole lab."""
    found: set[int] = set()
    for group in _groups(name, machine):
        try:
            found.update(int(word) for word in (group / "cgroup.procs").read_text().split())
        except OSError:  # gone meanwhile
            continue
    return found


def remove(name: str, machine: str = "", *, timeout: float = 20) -> None:
    """End all processes in the cgroups at once, as a power cut would, and take the cgroups away."""
    deadline = time.monotonic() + timeout
    ended: set[int] = set()
    while True:
        for process in processes(name, machine):
            ended.add(process)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for group in _groups(name, machine):
            with contextlib.suppress(OSError):  # not empty yet
                group.rmdir()
        # The kernel lets a process leave its cgroup some time before it is gone.
        if not _groups(name, machine) and not any(_is_there(process, name) for process in ended):
            return
        if time.monotonic() > deadline:
            left = ", ".join(map(str, sorted(processes(name, machine)))) or "none"
            raise LabError(f"cgroup {name}/{machine} does not go away; processes in it: {left}")
        time.sleep(0.02)


def exist(name: str) -> list[Path]:
    """Return the lab's top cgroups that are there."""
    return [top / name for top, _ in _hierarchies() if (top / name).exists()]


def _is_there(process: int, name: str) -> bool:
    try:
        return f"/{name}/" in Path(f"/proc/{process}/cgroup").read_text()
    except OSError:
        return False


def _groups(name: str, machine: str) -> list[Path]:
    """Return the cgroups, innermost first."""
    return [Path(path) for top, _ in _hierarchies() for path, _, _ in os.walk(top / name / machine, topdown=False)]


def _hierarchies() -> list[tuple[Path, str]]:
    """Return where each hierarchy is mounted, and its kind: cgroup or cgroup2."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] in {"cgroup", "cgroup2"}:
            found.append((Path(before.split()[4]), after.split()[0]))
    if not found:
        raise LabError("no cgroups on this computer: mount them at /sys/fs/cgroup")
    return found


def _absent(group: Path) -> list[str]:
    """Return the wanted controllers that a group of version 2 does not pass on to those inside it."""
    has = (group / "cgroup.controllers").read_text().split()
    on = (group / "cgroup.subtree_control").read_text().split()
    return [name for name in _CONTROLLERS if name in has and name not in on]


def _pass_on(group: Path, controllers: Sequence[str]) -> None:
    if controllers:
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
