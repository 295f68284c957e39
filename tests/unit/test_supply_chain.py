"""What is installed and run is pinned: packages by hash, actions by commit, and each known exception has its reason."""

import re
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
LISTS = sorted(path for path in (CHECKOUT / "requirements").glob("*.txt") if "==" in path.read_text())


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_each_package_of_a_list_has_its_hash(path: Path) -> None:
    requirements = re.sub(r"\\\n", " ", path.read_text()).splitlines()
    pinned = [line for line in requirements if line.strip() and not line.lstrip().startswith("#")]
    assert pinned
    assert [line for line in pinned if not re.search(r"^\S+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []


def test_each_action_is_named_by_its_commit() -> None:
    workflows = [yaml.safe_load(path.read_text()) for path in (CHECKOUT / ".github/workflows").glob("*.yml")]
    jobs = [job for workflow in workflows for job in workflow["jobs"].values()]
    actions = [step["uses"] for job in jobs for step in job["steps"] if "uses" in step]
    assert actions
    assert [action for action in actions if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []


def test_each_exception_of_the_audit_names_a_package_that_is_pinned_and_says_why() -> None:
    pinned = {name for path in LISTS for name in re.findall(r"^([\w.-]+)==", path.read_text(), re.MULTILINE)}
    lines = (CHECKOUT / "requirements/audit-exceptions.txt").read_text().splitlines()
    for line in (line for line in lines if not line.startswith("#")):
        found = re.fullmatch(r"(?:CVE|GHSA|PYSEC)-[\w-]+ ([\w.-]+): \S.{20,}", line)
        assert found, line
        assert found[1] in pinned


def test_our_own_code_is_built_with_what_the_lists_pin() -> None:
    """Else pip fetches whatever setuptools is the newest, without a hash."""
    for name in ("scripts/bootstrap", "roles/python_app/tasks/build_wheel.yml", "docker/install"):
        assert "--no-build-isolation" in (CHECKOUT / name).read_text(), name
        assert "--no-index" in (CHECKOUT / name).read_text(), name
