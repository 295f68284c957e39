"""What defines a service: a program that cannot help itself is not started every two seconds, and a change arrives."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tests.support.plays import Task, run_play

ROLE = Path(__file__).parents[2] / "roles/service"
REFUSED = 78
SERVICE = {
    "service_name": "posture-x",
    "service_description": "x",
    "service_command": ["/usr/bin/x"],
    "service_user": "x",
    "service_environment": {"NAME": "a"},
    "service_secrets": {"WORD": "a"},
    "service_write_paths": ["/var/lib/x"],
    "service_devices": [],
    "service_memory_max": "256M",
    "service_tasks_max": 256,
    "service_notify": False,
    "service_makes_code": False,
    "service_sees_processes": False,
    "service_before": [],
    "service_after": [],
    "service_stop_signal": "TERM",
    "service_restart_on": "",
    "service_reload_on": "",
}
PLACES = {"__common_etc": "/etc/posture", "__common_data": "/var/lib/posture", "posture_instance": "posture"}


def unit() -> dict[str, str]:
    """Return the directives of a service's unit."""
    loader = FileSystemLoader(ROLE / "templates")
    environment = Environment(loader=loader, trim_blocks=True, undefined=StrictUndefined)  # noqa: S701  (no HTML)
    environment.tests["search"] = lambda text, pattern: re.search(pattern, text)
    text = environment.get_template("unit.service.j2").render(SERVICE, __service_environment_file="/etc/posture/x.env")
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def test_a_refusal_waits_longer_than_a_crash_and_less_than_a_stop_may_take() -> None:
    directives = unit()
    wait = re.fullmatch(
        rf"""/bin/sh -c 'if \[ "\$EXIT_STATUS" = {REFUSED} \]; then sleep (\d+); fi'""", directives["ExecStopPost"]
    )
    assert wait
    assert 10 * int(directives["RestartSec"]) < int(wait[1]) < int(directives["TimeoutStopSec"])
    assert directives["Restart"] == "on-failure"


def test_a_core_dump_is_not_written() -> None:
    assert unit()["LimitCORE"] == "0"


@pytest.mark.parametrize("manager", ["systemd", "supervisor"])
def test_whatever_changes_in_a_service_restarts_it(tmp_path: Path, manager: str) -> None:
    """The role restarts a service when this digest is another one than at its last start."""
    shutil.copytree(ROLE / "templates", tmp_path / "templates")
    changes: dict[str, dict[str, Any]] = {
        "before": {},
        "again": {},
        "environment": {"service_environment": {"NAME": "b"}},
        "secret": {"service_secrets": {"WORD": "b"}},
        "restart_on": {"service_restart_on": "configuration"},
        "reload_on": {"service_reload_on": "configuration"},
        "write_paths": {"service_write_paths": ["/var/lib/y"]},
        "new release": {},
    }

    def note(change: str) -> Task:
        copy = {"content": "{{ __service_restart_digest }}", "dest": str(tmp_path / change)}
        return {"ansible.builtin.copy": copy, "vars": SERVICE | PLACES | changes[change]}

    lines = [{"path": str(path), "line": "# added by a new release"} for path in (tmp_path / "templates").iterdir()]
    tasks: list[Task] = [
        {"ansible.builtin.set_fact": {"service_mgr": manager, "cacheable": True}},
        {"ansible.builtin.include_vars": {"file": str(ROLE / "vars/main.yml")}},
        *[note(change) for change in changes if change != "new release"],
        *[{"ansible.builtin.lineinfile": line} for line in lines],
        note("new release"),
    ]
    done = run_play(tmp_path, tasks)
    assert done.returncode == 0, done.stdout + done.stderr
    before = (tmp_path / "before").read_text()
    changed = {change for change in changes if (tmp_path / change).read_text() != before}
    assert changed == {"environment", "secret", "restart_on", "new release"} | (
        {"write_paths"} if manager == "systemd" else set()
    )


@pytest.mark.parametrize("manager", ["systemd", "supervisor"])
def test_a_secret_is_in_a_file_of_its_own_and_nowhere_else(tmp_path: Path, manager: str) -> None:
    secret = "h\\e'i\"m ; #lich"
    wanted = {"content": "{{ __service_wanted | to_json }}", "dest": str(tmp_path / "wanted.json"), "mode": "0644"}
    tasks: list[Task] = [
        {"ansible.builtin.set_fact": {"service_mgr": manager, "cacheable": True}},
        {"ansible.builtin.include_vars": {"file": str(ROLE / "vars/main.yml")}},
        {"ansible.builtin.copy": wanted, "vars": SERVICE | PLACES | {"service_secrets": {"WORD": secret}}},
    ]
    shutil.copytree(ROLE / "templates", tmp_path / "templates")
    done = run_play(tmp_path, tasks)
    assert done.returncode == 0, done.stdout + done.stderr
    files = {file["path"]: file for file in json.loads((tmp_path / "wanted.json").read_text())}
    path = "/etc/posture/secrets/posture-x/WORD"
    assert files.pop(path) == {"path": path, "content": secret, "owner": "x", "mode": "0600"}
    assert files["/etc/posture/secrets/posture-x"] == {
        "path": "/etc/posture/secrets/posture-x",
        "owner": "x",
        "mode": "0700",
    }
    others = "".join(file.get("content", "") for file in files.values())
    assert f'WORD_FILE="{path}"' in others
    assert secret not in others
