"""The collection on the lab's machines: a copy of the inventory that users copy, and the playbooks run with it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab
from tests.lab.settings import CONTROL
from tests.support.checkout import CHECKOUT

_EXAMPLE = CHECKOUT / "inventory/lab"
_RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
_PSQL = "runuser -u postgres -- psql -h /var/lib/posture/database -p 5433 -tAc"


@dataclass(frozen=True)
class Played:
    """A playbook's run: how many tasks changed something on each machine, and all that was shown."""

    changed: dict[str, int]
    output: str


class Deployment:
    """A copy of inventory/lab with this lab's addresses and keys over it.

    Args:
        lab: the machines.
        directory: where the copy goes.
        images: what playbooks/build.yml has recorded.
        variables: what is set for all machines beside that.
    """

    def __init__(self, lab: Lab, directory: Path, *, images: Mapping[str, str], variables: Mapping[str, Any]) -> None:
        self.lab = lab
        self.inventory = directory / "inventory"
        shutil.copytree(_EXAMPLE, self.inventory, ignore=shutil.ignore_patterns(".*"))
        (self.inventory / ".images.json").write_text(json.dumps(dict(images)))
        self._variables = json.dumps(dict(variables))

    def play(self, name: str, *options: str) -> Played:
        """Run a playbook, which has to succeed."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.inventory / "hosts.yml")]
        command += ["-i", str(self.lab.inventory), "-e", self._variables, *options, f"playbooks/{name}.yml"]
        done = subprocess.run(
            command,
            env=os.environ | {"ANSIBLE_CONFIG": f"{CHECKOUT}/ansible.cfg", "ANSIBLE_NOCOLOR": "1"},
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
        print(done.stdout)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        changed = {host: int(changed) for host, changed, _, _ in _RECAP.findall(done.stdout)}
        return Played(changed, done.stdout + done.stderr)

    def query(self, query: str) -> Any:
        """Return what the database answers, from JSON; None where it answers nothing."""
        text = self.lab.machine(CONTROL).shell(f'{_PSQL} "{query}" posture').strip()
        return json.loads(text) if text else None

    def rows(self) -> dict[str, int]:
        """Return how many rows each Pi has."""
        query = (
            "SELECT json_object_agg(pi_id, n) FROM (SELECT pi_id, count(*) AS n FROM posture_results GROUP BY 1) AS t"
        )
        counts: dict[str, int] = self.query(query) or {}
        return counts

    def secrets(self) -> dict[str, str]:
        """Return the passwords that `up` made, by the names of their files."""
        return {file.stem: file.read_text().strip() for file in (self.inventory / ".secrets").glob("*.txt")}

    @property
    def ca(self) -> Path:
        """The certificate of the authority that `up` made."""
        return self.inventory / ".secrets/tls/ca.crt"

    def services(self, name: str) -> dict[str, str]:
        """Return the state of each of the collection's services on a machine."""
        listed = self.lab.machine(name).shell("systemctl list-units --all --plain --no-legend 'posture-*.service'")
        return {line.split()[0]: line.split()[3] for line in listed.splitlines()}
