"""What the lab is made of: machines, names, addresses and places; each is a setting, POSTURE_LAB_<NAME>."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path

from tests.lab.tools import LabError

_PREFIX = "POSTURE_LAB_"


@dataclass(frozen=True)
class Kind:
    """A machine's hardware and software: `base` names its layers (base.py), `host` is its number in the subnet."""

    base: str
    host: int
    node: bool = False
    docker: bool = False
    camera: bool = False

    @property
    def architecture(self) -> str:
        """As `uname -m` says it."""
        return "aarch64" if self.base == "machine-arm64" else "x86_64"


KINDS = {
    "nuc": Kind("node", 30, node=True),
    "agx": Kind("node", 31, node=True),
    "orin": Kind("node", 32, node=True),
    "pi1": Kind("machine", 21, camera=True),
    "pi2": Kind("machine-arm64", 22, camera=True),
    "fresh": Kind("fresh", 40),
    "laptop": Kind("laptop", 41, docker=True),
}
FIVE = ("nuc", "agx", "orin", "pi1", "pi2")
NODES = tuple(name for name, kind in KINDS.items() if kind.node)
CONTROL = "nuc"


@dataclass(frozen=True)
class Settings:
    """One lab; two with different names, subnets and state directories can be up side by side."""

    name: str = "lab"  # of its namespaces, links and cgroup
    state: Path = Path("/var/lib/posture-lab")  # the machines' disks, and what a later process finds its own by
    subnet: IPv4Network = field(default=IPv4Network("10.77.0.0/24"))  # the machines
    uplink: IPv4Network = field(default=IPv4Network("10.78.0.0/30"))  # between this computer and the lab's router
    pods: IPv4Network = field(default=IPv4Network("10.88.0.0/16"))
    services: IPv4Network = field(default=IPv4Network("10.96.0.0/16"))
    mirror: str = ""
    boot_s: float = 60  # how long a machine or node may take

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,7}", self.name):
            raise LabError(f"{_PREFIX}NAME={self.name}: one to eight letters and digits, beginning with a letter")
        for name, longest in (("subnet", 26), ("uplink", 30), ("pods", 20), ("services", 28)):
            if getattr(self, name).prefixlen > longest:
                raise LabError(f"{_PREFIX}{name.upper()}={getattr(self, name)} is too small: /{longest} or larger")
        networks = self.networks
        for index, one in enumerate(networks):
            for other in networks[index + 1 :]:
                if one.overlaps(other):
                    raise LabError(
                        f"the lab's networks {one} and {other} overlap: set {_PREFIX}SUBNET, UPLINK, PODS or SERVICES"
                    )

    @property
    def networks(self) -> tuple[IPv4Network, ...]:
        """All that must be free."""
        return (self.subnet, self.uplink, self.pods, self.services)

    @property
    def router(self) -> IPv4Address:
        """The machines' gateway."""
        return self.subnet[1]

    def address(self, machine: str) -> IPv4Address:
        """Return a machine's address."""
        return self.subnet[KINDS[machine].host]

    def pods_of(self, node: str) -> IPv4Network:
        """Return the addresses of the pods on a node."""
        return next(islice(self.pods.subnets(new_prefix=24), NODES.index(node) + 1, None))

    def namespace(self, machine: str) -> str:
        """Return the network namespace of a machine."""
        return f"{self.name}-{machine}"


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings that the environment gives, the defaults otherwise."""
    values: dict[str, object] = {}
    kinds = {"name": str, "state": Path, "mirror": str, "boot_s": float}
    for name in Settings.__dataclass_fields__:
        text = environment.get(_PREFIX + name.upper())
        if text:
            try:
                values[name] = kinds.get(name, IPv4Network)(text)
            except ValueError as error:
                raise LabError(f"{_PREFIX}{name.upper()}={text}: {error}") from None
    return Settings(**values)  # type: ignore[arg-type]  # each value was made by its field's own type just above
