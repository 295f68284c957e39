"""Runs plays on this machine with the checkout's collection, as a user's ansible-playbook would."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).parents[2]
Task = dict[str, Any]


def run_play(
    directory: Path,
    tasks: Sequence[Task],
    *,
    arguments: Iterable[str] = (),
    python: str = sys.executable,
    become: bool = False,
    groups: Iterable[str] = (),
) -> "subprocess.CompletedProcess[str]":
    """Run the tasks on this machine, which is in all `groups`; play and inventory are files in `directory`."""
    play, inventory = directory / "play.yml", directory / "hosts.yml"
    host = {"ansible_connection": "local", "ansible_python_interpreter": python}
    children: dict[str, Any] = {group: {"hosts": {"localhost": {}}} for group in groups}
    inventory.write_text(json.dumps({"all": {"hosts": {"localhost": host}, "children": children}}))
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "become": become, "tasks": tasks}]))
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, play, *arguments],
        env={**os.environ, "ANSIBLE_CONFIG": str(_CHECKOUT / "ansible.cfg"), "ANSIBLE_LOCALHOST_WARNING": "false"},
        cwd=_CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def role(name: str, variables: Mapping[str, Any], *, tasks_from: str = "main") -> Task:
    """Return the task that runs a role of the collection."""
    return {"ansible.builtin.include_role": {"name": f"posture.edge.{name}", "tasks_from": tasks_from}} | {
        "vars": dict(variables)
    }


def refusals(directory: Path, attempts: Mapping[str, Task]) -> list[Task]:
    """Return tasks that make each attempt and write down with which message it failed, null where it did not.

    `refused` reads that.
    """
    tasks: list[Task] = [{"ansible.builtin.set_fact": {"said": {}}}]
    for name, attempt in attempts.items():
        note = {"said": f"{{{{ said | combine({{'{name}': message}}) }}}}"}
        tasks.append(
            {
                "block": [attempt, {"ansible.builtin.set_fact": note, "vars": {"message": None}}],
                "rescue": [
                    {"ansible.builtin.set_fact": note, "vars": {"message": "{{ ansible_failed_result.msg }}"}},
                ],
            }
        )
    copy = {"content": "{{ said | to_json }}", "dest": str(_notes(directory)), "mode": "0644"}
    return [*tasks, {"ansible.builtin.copy": copy}]


def refused(directory: Path) -> dict[str, str | None]:
    """Return what `refusals` wrote down."""
    said: dict[str, str | None] = json.loads(_notes(directory).read_text())
    return said


def _notes(directory: Path) -> Path:
    return directory / "refusals.json"
