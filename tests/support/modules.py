"""Runs one of the collection's modules as a task of a play, and returns its result whether it failed or not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).parents[2]
_PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - posture.edge.{module}: {arguments}
      register: result
      ignore_errors: true
    - ansible.builtin.copy:
        content: "{{{{ result | to_json }}}}"
        dest: {result}
        mode: "0600"
"""


def run_module(directory: Path, module: str, arguments: dict[str, Any]) -> Any:
    """Run the module on this machine; the play and its result are files in `directory`."""
    play, result = directory / "play.yml", directory / "result.json"
    play.write_text(_PLAY.format(module=module, arguments=json.dumps(arguments), result=result))
    ran = subprocess.run(
        [
            *(Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local", play),
            *("-e", f"ansible_python_interpreter={sys.executable}"),
        ],
        env={**os.environ, "ANSIBLE_CONFIG": str(_CHECKOUT / "ansible.cfg"), "ANSIBLE_LOCALHOST_WARNING": "false"},
        cwd=_CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.exists(), ran.stdout + ran.stderr
    return json.loads(result.read_text())
