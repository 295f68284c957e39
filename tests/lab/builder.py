"""The playbook build.yml, run against the machine with Docker from a copy of the checkout, which may be changed."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab
from tests.lab.registry import Registry
from tests.support import checkout

_RECAP = re.compile(r"^laptop\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
_MESSAGE = re.compile(r"\[ERROR\]: Task failed: (?:Action failed: )?(.*)")


@dataclass(frozen=True)
class Run:
    """What a run of the playbook did."""

    changed: int
    failed: int
    seconds: float
    output: str

    @property
    def message(self) -> str:
        """The one line that says what went wrong; the last, where a block reports what a task in it met."""
        found: list[str] = _MESSAGE.findall(self.output)
        return found[-1] if found else ""

    @property
    def built(self) -> list[str]:
        """The images that were built."""
        task = r"TASK \[posture.edge.image : Build and push each image\][^\n]*\n(.*?)\n\n"
        tasks = re.findall(task, self.output, re.DOTALL)
        return re.findall(r"^changed: \[laptop\] => \(item=(\w+)\)", "\n".join(tasks), re.MULTILINE)


class Builder:
    """An inventory whose builder is the laptop, and a checkout."""

    def __init__(self, lab: Lab, directory: Path, variables: dict[str, Any]) -> None:
        self.lab = lab
        self.checkout = directory / "checkout"
        self.inventory = directory / "inventory/hosts.yml"
        self.variables = variables
        _copy_checkout(self.checkout)
        self.inventory.parent.mkdir()
        group = {"hosts": {"laptop": None}}
        content = {"all": {"children": dict.fromkeys(("broker", "database", "builder"), group)}}
        self.inventory.write_text(json.dumps(content))

    @property
    def recorded(self) -> dict[str, str]:
        """What the playbook has recorded beside the inventory."""
        content: dict[str, str] = json.loads((self.inventory.parent / ".images.json").read_text())
        return content

    def run(self, *options: str, **variables: Any) -> Run:
        """Run the playbook; with other variables where given."""
        values = {
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            **self.variables,
            **variables,
        }
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.inventory)]
        command += ["-i", str(self.lab.inventory), "-e", json.dumps(values), *options, "playbooks/build.yml"]
        began = time.monotonic()
        done = subprocess.run(
            command,
            env=os.environ
            | {"ANSIBLE_CONFIG": f"{self.checkout}/ansible.cfg", "ANSIBLE_NOCOLOR": "1", "COLUMNS": "10000"},
            cwd=self.checkout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        seconds = time.monotonic() - began
        output = done.stdout + done.stderr
        print(output)
        recap = _RECAP.search(output)
        assert recap, output
        return Run(int(recap[1]), int(recap[2]) + int(recap[3]), seconds, output)

    def build(self, **variables: Any) -> Run:
        """Run the playbook, which must not fail."""
        run = self.run(**variables)
        assert run.failed == 0, run.output[-6000:]
        return run

    def clean(self) -> None:
        """Remove our containers, and what Docker has pulled, from the machine."""
        machine = self.lab.machine("laptop")
        containers = "docker ps --all --quiet --filter label=app.kubernetes.io/part-of=posture-edge"
        machine.shell(f"{containers} | xargs -r docker rm --force --volumes")
        machine.shell("docker images --quiet '127.0.0.1:*/*' | sort -u | xargs -r docker rmi --force", timeout=100)


def variables_for(registry: Registry, repository: str) -> dict[str, Any]:
    """Return the variables of a build that pushes to the registry and has its base from there."""
    return {"posture_image": f"{registry.local}/{repository}", "image_base": f"{registry.local}/python:3.11"}


def _copy_checkout(target: Path) -> None:
    """Copy it, and link the collection as scripts/bootstrap does."""
    checkout.copy((name for name in checkout.files() if not name.startswith("tests/")), target)
    link = target / "collections/ansible_collections/posture/edge"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../..")


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".env"))
    else:
        shutil.copy2(source, target)
