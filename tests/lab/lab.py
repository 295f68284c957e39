"""A whole lab: brought up, changed, described, taken down; nothing of it outlives `down`, not even a killed run's."""

import json
import shutil
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab import base, cgroups, cluster, host, load, network
from tests.lab.machine import CAMERA, Machine, ssh_options
from tests.lab.record import Record, alone
from tests.lab.settings import CONTROL, FIVE, KINDS, NODES, Settings
from tests.lab.tools import LabError, run, say, step

_CONTAINERD = ("ctr", "--namespace", "k8s.io", "images", "import", "-")


class Lab:
    """The lab in a state directory, up or not."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.kubeconfig = settings.state / "kubeconfig"
        self.inventory = settings.state / "inventory.yml"

    @property
    def is_up(self) -> bool:
        """Whether `up` came to its end and nothing took it down since, such as a restart of this computer."""
        record = Record.load(self.settings.state)
        return bool(record and record.complete and self.machines())

    def machines(self) -> list[Machine]:
        """Return the machines that have a disk, on or off."""
        return [machine for name in KINDS if (machine := Machine(self.settings, name)).exists]

    def machine(self, name: str) -> Machine:
        """Return a machine that is there."""
        machine = Machine(self.settings, name) if name in KINDS else None
        if not machine or not machine.exists:
            known = ", ".join(machine.name for machine in self.machines()) or "none: make lab brings them up"
            raise LabError(f"there is no machine {name} in the lab; there are {known}")
        return machine

    def up(self, names: Sequence[str] = FIVE) -> None:
        """Bring the machines up; what an earlier run left half done is cleared first."""
        unknown = [name for name in names if name not in KINDS]
        if unknown:
            raise LabError(f"no machine is called {unknown[0]}: {', '.join(KINDS)}")
        host.check_tools()
        with alone(self.settings):
            if self.is_up:
                say(f"The lab in {self.settings.state} is up already")
                self._add([name for name in names if not Machine(self.settings, name).exists])
                return
            self._clear()
            host.check_free(self.settings)
            record = Record(self.settings)
            record.save()
            host.prepare(self.settings)
            for kind in {KINDS[name].base for name in names}:
                base.layers(kind, self.settings)
            begin = time.monotonic()
            network.make(self.settings)
            keys = self.settings.state / "ssh"
            keys.mkdir(mode=0o700)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", keys / "key")
            self._add(names)
            record.complete = True
            record.save()
            say(f"The lab is up: {time.monotonic() - begin:.1f} s")

    def down(self) -> None:
        """Take everything away: processes, mounts, cgroups, namespaces, links, rules, the state directory."""
        if self.settings.state.exists():
            with alone(self.settings):
                self._clear()

    def power_on(self, name: str) -> None:
        """Switch a machine on and wait for its ssh; one that the lab does not have yet is made."""
        with alone(self.settings):
            if not self.is_up:
                raise LabError("there is no lab: make lab")
            if name in KINDS and not Machine(self.settings, name).exists:
                self._add([name])
                return
            machine = self.machine(name)
            machine.power_on()
            machine.wait_ready()

    def power_off(self, name: str) -> None:
        """Pull a machine's plug."""
        with alone(self.settings):
            self.machine(name).power_off()

    def set_link(self, name: str, *, up: bool) -> None:
        """Plug a machine's network cable in or out."""
        machine = self.machine(name)
        if not machine.is_on:
            raise LabError(f"{name} is off: its link comes back with power-on")
        network.set_link(self.settings, name, up=up)

    def load_image(self, name: str, tar: Path) -> str:
        """Import a container image (a tar of `docker save`) into a node and return what containerd says."""
        machine = self.machine(name)
        if not machine.kind.node:
            raise LabError(f"{name} has no containerd: {', '.join(NODES)} have")
        with tar.open("rb") as content:
            return machine.ssh(*_CONTAINERD, stdin=content, timeout=600)

    def status(self) -> str:
        """Return a drawing of the machines and how to reach them."""
        if not self.is_up:
            return "There is no lab. Bring it up: make lab"
        ready = cluster.ready_nodes(self.settings)
        rows = [("machine", "address", "architecture", "power", "link", "Kubernetes")]
        for machine in self.machines():
            on = machine.is_on
            link = "up" if on and network.link_is_up(self.settings, machine.name) else "down"
            state = ("Ready" if machine.name in ready else "NotReady") if machine.kind.node else "-"
            rows.append((machine.name, machine.address, machine.kind.architecture, "on" if on else "off", link, state))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += ["", f"  a shell       python -m tests.lab ssh {rows[1][0]}"]
        lines += [f"  Ansible       -i inventory/lab -i {self.inventory}"]
        if any(machine.kind.node for machine in self.machines()):
            control = self.settings.address(CONTROL)
            lines += [
                f"  Kubernetes    KUBECONFIG={self.kubeconfig}",
                f"  Prometheus    http://{control}:{load.PROMETHEUS_PORT}",
            ]
        return "\n".join(lines)

    def _add(self, names: Iterable[str]) -> None:
        machines = [Machine(self.settings, name) for name in names]
        nodes = [machine for machine in machines if machine.kind.node]
        if nodes and CONTROL not in [node.name for node in nodes]:
            raise LabError(f"the nodes of a cluster come up together, with {CONTROL}: make lab-down, then make lab")
        for machine in machines:
            machine.make(base.layers(machine.kind.base, self.settings))
        if nodes:
            cluster.configure(self.settings, nodes)
            load.configure(nodes)
        self._write_inventory()
        with step(f"Starting {', '.join(machine.name for machine in machines)}"):
            for machine in machines:
                machine.power_on()
            with ThreadPoolExecutor() as pool:
                list(pool.map(Machine.wait_ready, machines))
            if nodes:
                cluster.wait_ready(self.settings, nodes)

    def _write_inventory(self) -> None:
        """Write the overlay of inventory/lab: addresses, keys, the cluster, and what stands in for cameras and GPUs."""
        common = " ".join(["-F none", *ssh_options(self.settings)[2:]])
        hosts: dict[str, dict[str, str]] = {
            machine.name: {
                "ansible_host": machine.address,
                "ansible_ssh_private_key_file": str(self.settings.state / "ssh/key"),
                "ansible_ssh_common_args": common,
                **({"posture_camera": f"directory:/{CAMERA}"} if machine.kind.camera else {}),
                **(_gpu(load.BOARDS[machine.name]) if machine.name in load.BOARDS else {}),
            }
            for machine in self.machines()
        }
        if any(machine.kind.node for machine in self.machines()):
            # On each host, for a group's variables would be weaker than those of inventory/lab.
            cluster = {"posture_kubeconfig": str(self.kubeconfig), "posture_pod_network": str(self.settings.pods)}
            hosts["localhost"] = {"ansible_connection": "local"}
            hosts = {name: variables | cluster for name, variables in hosts.items()}
        self.inventory.write_text(json.dumps({"all": {"hosts": hosts}}, indent=2) + "\n")

    def _clear(self) -> None:
        """Take away whatever the record in the state directory stands for, however far its run came."""
        record = Record.load(self.settings.state)
        if record:
            own = record.settings
            cgroups.remove(own.name)
            network.remove(own)
            host.restore(own)
            for name in KINDS:
                shutil.rmtree(Path("/run/systemd/nspawn/propagate") / own.namespace(name), ignore_errors=True)
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if Path(mount).is_relative_to(self.settings.state)]):
            run("umount", mount)
        for left in self.settings.state.iterdir():
            if left.name != "lock":
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _gpu(board: str) -> dict[str, str]:
    return {"exporter_sysfs_root": f"/{load.SYSFS}", "exporter_board": board}
