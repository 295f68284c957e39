"""The collection's artifact: made from a checkout in use without what its user keeps there, and enough by itself."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT, copy, files

SECRET = secrets.token_hex(16)
USERS = [
    ".secrets/database.txt",
    ".venv/bin/python",
    ".hypothesis/examples/1",
    ".pytest_cache/README.md",
    "build/lib/posture_edge/load.py",
    "collections/ansible_collections/other/thing/galaxy.yml",
    "posture_edge.egg-info/PKG-INFO",
    "extensions/molecule/default/inventory/.secrets/database.txt",
    "inventory/local/.secrets/mqtt-pi1.txt",
    "tests/unit/__pycache__/test_load_table.cpython-311.pyc",
    *(f"inventory/{name}/hosts.yml" for name in ("mylab", "lab2", "l", "la", "labor", "loc", "local-2", "nuc")),
    "inventory/lab.yml",
    "inventory/hosts",
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the artifact from a checkout in use, install it elsewhere, and return where it is."""
    directory = tmp_path_factory.mktemp("somebody's own")
    checkout = directory / "the check out"
    copy(files(), checkout)
    for name in USERS:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(SECRET)
    ansible(directory, "galaxy", "collection", "build", checkout, "--output-path", directory)
    shutil.rmtree(checkout)
    [artifact] = directory.glob("*.tar.gz")
    ansible(directory, "galaxy", "collection", "install", "--offline", artifact, "-p", directory / "installed")
    return directory / "installed"


def ansible(directory: Path, command: str, *arguments: str | Path, **environment: str) -> str:
    """Run ansible-<command> in the directory as on a machine that has no settings for it, and return its output."""
    settings = directory / "ansible.cfg"
    settings.touch()
    ran = subprocess.run(
        [Path(sys.executable).with_name(f"ansible-{command}"), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "ANSIBLE_CONFIG": str(settings), **environment},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_the_artifact_holds_nothing_of_its_user(installed: Path) -> None:
    collection = installed / "ansible_collections/posture/edge"
    inside = [path.relative_to(collection) for path in collection.rglob("*") if path.is_file()]
    assert [file for file in inside if SECRET.encode() in (collection / file).read_bytes()] == []
    assert {file.parts[1] for file in inside if file.parts[0] == "inventory"} == {"lab", "local"}
    roots = ("docker", "inventory/lab", "inventory/local", "playbooks", "plugins", "requirements", "roles", "samples")
    needed = tuple(f"{root}/" for root in roots)
    missing = {name for name in files() if name.startswith(needed)} - {str(file) for file in inside}
    assert missing == set()


def test_the_installed_playbooks_work_without_the_checkout(installed: Path) -> None:
    collection = installed / "ansible_collections/posture/edge"
    names = ("up", "down", "status", "loads", "build")
    playbooks = [f"posture.edge.{name}" for name in names]
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    inventory = collection / "inventory/local"
    listed = ansible(installed, "playbook", "-i", inventory, "--list-tasks", *playbooks, **environment)
    found = [line for line in listed.splitlines() if line.startswith("playbook: ")]
    assert found == [f"playbook: {collection}/playbooks/{name}.yml" for name in names]
    for task in ("posture.edge.broker : Bring the broker to state", "Show the services", "Show the loads"):
        assert task in listed
    assert str(CHECKOUT) not in listed
