"""Runs one of the collection's modules as a task of a play, and returns its result whether it failed or not."""

import json
from pathlib import Path
from typing import Any

from tests.support.plays import Task, run_play


def run_module(directory: Path, module: str, arguments: dict[str, Any]) -> Any:
    """Run the module on this machine; the play and its result are files in `directory`."""
    result = directory / "result.json"
    tasks: list[Task] = [
        {f"posture.edge.{module}": arguments, "register": "result", "ignore_errors": True},
        {"ansible.builtin.copy": {"content": "{{ result | to_json }}", "dest": str(result), "mode": "0600"}},
    ]
    ran = run_play(directory, tasks)
    assert result.exists(), ran.stdout + ran.stderr
    return json.loads(result.read_text())
