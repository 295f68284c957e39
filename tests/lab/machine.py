"""A machine: Debian with its own systemd, sshd, address and disk, in a systemd-nspawn container with a power switch.

Its disk is an overlay over the layers of its base and lasts through power cuts until the lab is taken down.
"""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from tests.lab import cgroups, host, network
from tests.lab.settings import KINDS, Settings
from tests.lab.tools import LabError, run

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PIP = Path("/etc/pip.conf")
CAMERA = "srv/camera"  # where a Pi of the lab has its pictures from: a folder instead of a camera
_SAMPLES = Path(__file__).parents[2] / "samples"
# Container engines keep overlays of their own, which the kernel does not stack on the machine's.
_ENGINE_STORES = ("/var/lib/containerd", "/var/lib/docker")
# Runs the machine, and again when it has ended by a reboot of its own.
_SWITCH = """
for group in $SWITCH; do echo $$ >$group || exit; done
while sh -c 'for group in $MACHINE; do echo $$ >$group || exit; done; exec "$@"' sh "$@"; [ $? = 133 ]; do :; done
"""


class Machine:
    """One machine of a lab; several of these objects, in several processes, may stand for the same machine."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.name = name
        self.kind = KINDS[name]
        self.address = str(settings.address(name))
        self.path = settings.state / "machines" / name
        self.root = self.path / "root"

    @property
    def exists(self) -> bool:
        """Whether it has a disk."""
        return self.root.is_mount()

    @property
    def is_on(self) -> bool:
        """Whether any process of it runs."""
        return self.exists and bool(cgroups.processes(self.settings.name, self.name))

    def make(self, layers: Sequence[Path]) -> None:
        """Give it a disk over the layers, and what makes it this machine: name, keys, name servers, certificates."""
        for part in ("upper", "work", "root"):
            (self.path / part).mkdir(parents=True)
        lower = ":".join(map(str, layers))
        options = f"lowerdir={lower},upperdir={self.path / 'upper'},workdir={self.path / 'work'}"
        run("mount", "-t", "overlay", f"{self.settings.name}-{self.name}", "-o", options, self.root)
        self.write("etc/hostname", f"{self.name}\n")
        self.write("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        self.write("etc/machine-id", f"{uuid.uuid4().hex}\n")
        self.write("etc/resolv.conf", "".join(f"nameserver {server}\n" for server in host.nameservers()))
        self.write("root/.ssh/authorized_keys", (self.settings.state / "ssh/key.pub").read_text(), mode=0o600)
        key = self.settings.state / "ssh" / self.name
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", key)
        self.write("etc/ssh/ssh_host_ed25519_key", key.read_text(), mode=0o600)
        with (self.settings.state / "ssh/known_hosts").open("a") as known:
            known.write(f"{self.address} {key.with_suffix('.pub').read_text()}")
        # Where a proxy signs https again, a machine without this computer's certificates reaches no registry.
        if _CERTIFICATES.exists():
            bundle = _CERTIFICATES.read_text()
            self.write("etc/ssl/certs/ca-certificates.crt", bundle)
            self.write("usr/local/share/ca-certificates/host.crt", bundle)
        if _PIP.exists():
            self.write("etc/pip.conf", _PIP.read_text())
        if self.kind.camera:
            shutil.copytree(_SAMPLES, self.root / CAMERA, ignore=shutil.ignore_patterns("*.md"))

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file on its disk, with the power on or off."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if path.startswith("root/.") else 0o755)
        part = target.with_name(f".{target.name}.part")
        part.touch(mode=0o600)
        part.write_text(text)
        part.chmod(mode)
        part.rename(target)

    def power_on(self) -> None:
        """Switch it on; `wait_ready` tells when it can be used."""
        if self.is_on:
            return
        self.power_off()  # what is left of it, if it ended by itself
        network.attach(self.settings, self.name)
        switch, inside = cgroups.make(self.settings.name, self.name)
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            "SYSTEMD_NSPAWN_USE_CGNS": "1",
            "SWITCH": " ".join(map(str, switch)),
            "MACHINE": " ".join(map(str, inside)),
        }
        with (self.path / "console.log").open("ab") as console:
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", _SWITCH, "sh", *self._nspawn()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environment,
                check=True,
            )

    def _nspawn(self) -> list[str]:
        name = self.settings.namespace(self.name)
        command = ["systemd-nspawn", "--quiet", "--settings=no", "--register=no", "--keep-unit", "--link-journal=no"]
        command += ["--resolv-conf=off", "--timezone=off", "--console=read-only", "--boot"]
        command += [f"--directory={self.root}", f"--machine={name}", f"--hostname={self.name}"]
        command += [f"--network-namespace-path=/run/netns/{name}"]
        if self.kind.node or self.kind.docker:
            command += ["--capability=all", "--system-call-filter=add_key keyctl bpf", "--bind=/dev/kmsg"]
            for store in _ENGINE_STORES:
                place = self.path / Path(store).name
                place.mkdir(exist_ok=True)
                command.append(f"--bind={place}:{store}")
        return command

    def power_off(self) -> None:
        """Pull the plug: every process ends at once, the disk stays."""
        cgroups.remove(self.settings.name, self.name)
        network.detach(self.settings, self.name)
        propagate = Path("/run/systemd/nspawn/propagate") / self.settings.namespace(self.name)
        shutil.rmtree(propagate, ignore_errors=True)

    def wait_ready(self) -> None:
        """Return when its sshd answers; raise LabError with its console's last words when it does not in time."""
        deadline = time.monotonic() + self.settings.boot_s
        while not self._greets():
            if time.monotonic() > deadline:
                words = (self.path / "console.log").read_text(errors="replace").splitlines()[-15:]
                raise LabError(
                    f"{self.name} has no ssh after {self.settings.boot_s:g} s; its console:\n" + "\n".join(words)
                )
            time.sleep(0.05)

    def _greets(self) -> bool:
        try:
            with socket.create_connection((self.address, 22), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def ssh(self, *command: str, stdin: str | BinaryIO = "", timeout: float = 60) -> str:
        """Run a command on it and return what it printed; raise LabError where it fails."""
        return run(*self.ssh_command(), shlex.join(command), stdin=stdin, timeout=timeout)

    def shell(self, line: str, *, timeout: float = 60) -> str:
        """Run a line of shell on it, as `ssh` does a command."""
        return run(*self.ssh_command(), line, timeout=timeout)

    def booted_at(self) -> str:
        """Return the start of its systemd by the kernel's clock; empty while it cannot be asked."""
        try:
            return self.ssh("cat", "/proc/1/stat").split()[21]
        except LabError:
            return ""

    def processes(self, program: str, **environment: str) -> list[int]:
        """Return its processes of a program, in pods too, as this computer numbers them; with these variables."""
        words = {f"{name}={value}".encode() for name, value in environment.items()}
        found = []
        for process in cgroups.processes(self.settings.name, self.name):
            with contextlib.suppress(OSError):
                place = Path("/proc") / str(process)
                arguments = (place / "cmdline").read_bytes().split(b"\0")
                runs = any(Path(os.fsdecode(argument)).name == program for argument in arguments[:2])
                if runs and words <= set((place / "environ").read_bytes().split(b"\0")):
                    found.append(process)
        return sorted(found)

    def ssh_command(self, *options: str) -> list[str]:
        """Return the command that reaches it."""
        return ["ssh", "-F", "none", *ssh_options(self.settings), *options, f"root@{self.address}"]


def ssh_options(settings: Settings) -> list[str]:
    """Return ssh's options for the machines of a lab: its own key, and their keys exactly."""
    keys = settings.state / "ssh"
    known = f"-oUserKnownHostsFile={keys}/known_hosts"
    return ["-i", f"{keys}/key", "-oIdentitiesOnly=yes", "-oBatchMode=yes", "-oConnectTimeout=5", known]
