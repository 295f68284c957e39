"""This checkout's images where the lab's nodes get them: built by playbooks/build.yml, in a registry on `laptop`."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.lab import containers
from tests.lab.builder import Builder, variables_for
from tests.lab.lab import Lab
from tests.lab.registry import Registry
from tests.lab.settings import NODES

_PORT = 5009  # the package's own registry, which takes nothing, has 5000


def publish(lab: Lab, inventory: Path) -> Mapping[str, str]:
    """Build, push, let the nodes pull, and record the images beside the inventory; return them by target.

    The registry stays until the laptop is switched off.
    """
    lab.up(["laptop"])
    laptop = lab.machine("laptop")
    registry = Registry(laptop, _PORT)
    registry.start()
    containers.push_all(registry, lab.settings)
    registry.let_pull([lab.machine(name) for name in NODES])
    with tempfile.TemporaryDirectory(prefix="posture-lab-") as directory:
        builder = Builder(lab, Path(directory), variables_for(registry, "posture"))
        builder.build()
        recorded = builder.recorded
    (inventory / ".images.json").write_text(json.dumps(recorded, indent=4) + "\n")
    return recorded
