"""The units of systemd that the roles write, rendered with the roles' own variables."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.plays import Task, run_play

ROLES = Path(__file__).parents[2] / "roles"
_GROUPS = ("broker", "database", "analyzers", "pis", "home", "metrics", "jetsons")
_CAMERAS = ("picamera2", "v4l2:/dev/video0", "directory:/pictures")
# What Ansible and the roles find out on a machine before they run a service.
_FACTS = {"service_mgr": "systemd", "hostname": "here", "cacheable": True}
_FOUND = {
    "__analyzer_app": "/opt/posture/analyzer-1",
    "__analyzer_stream": ["pi1", 0],
    "__publisher_app": "/opt/posture/publisher-1",
    "__database_found": {"stdout_lines": ["/usr/lib/postgresql/15/bin/postgres"]},
}


def render(directory: Path) -> dict[str, Path]:
    """Write the unit of each service into the directory and return them by name; a publisher's for each camera."""
    cases: dict[str, tuple[str, Task, dict[str, str]]] = {}
    for role, task in service_tasks():
        if role == "publisher":
            for camera in _CAMERAS:
                cases[f"posture-publisher-{camera.partition(':')[0]}"] = role, task, {"posture_camera": camera}
        else:
            cases[f"posture-{role}"] = role, task, {}
    units = {name: directory / f"{name}.service" for name in cases}
    tasks: list[Task] = [{"ansible.builtin.set_fact": _FACTS}, {"ansible.builtin.set_fact": _FOUND}]
    for name, (role, task, given) in cases.items():
        template = {"src": str(ROLES / "service/templates/unit.service.j2"), "dest": str(units[name]), "mode": "0644"}
        defaults = _of("common", "defaults") | _of("service", "defaults") | _of(role, "defaults")
        worked_out = _of("common", "vars") | _of("service", "vars") | _of(role, "vars")
        variables = defaults | worked_out | {"role_path": str(ROLES / role)} | task["vars"] | given
        tasks.append({"ansible.builtin.template": template, "vars": variables})
    done = run_play(directory, tasks, groups=_GROUPS)
    assert done.returncode == 0, done.stdout + done.stderr
    return units


def directives(unit: Path) -> dict[str, list[str]]:
    """Return a unit's directives, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        name, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def service_tasks() -> Iterator[tuple[str, Task]]:
    """Yield each task that runs a service, with its role."""
    for path in sorted(ROLES.glob("*/tasks/*.yml")):
        for task in _flat(yaml.safe_load(path.read_text(encoding="utf-8")) or []):
            included = task.get("ansible.builtin.include_role", {})
            if included.get("name") == "posture.edge.service" and "service_command" in task.get("vars", {}):
                yield path.parents[1].name, task


def _flat(tasks: list[Task]) -> Iterator[Task]:
    for task in tasks:
        yield task
        for inner in ("block", "rescue", "always"):
            yield from _flat(task.get(inner, []))


def _of(role: str, kind: str) -> dict[str, Any]:
    path = ROLES / role / kind / "main.yml"
    variables: dict[str, Any] = (yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None) or {}
    return variables
