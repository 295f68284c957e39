"""The Dockerfile and what the playbook, the builder and the version of the collection have to agree with it about."""

import re
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).parents[2]
DOCKERFILE = (CHECKOUT / "docker/Dockerfile").read_text()


def test_its_version_is_the_collections() -> None:
    version = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["version"]
    assert re.findall(r"image\.version=(\S+)", DOCKERFILE) == [version, version]


def test_the_key_is_made_of_all_that_the_build_copies() -> None:
    """Else a change would not be built."""
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    archive = yaml.safe_load((CHECKOUT / "roles/image/vars/main.yml").read_text())["__image_archive"].split()
    for name in " ".join(copied).split():
        assert name in archive, name
    assert {"docker/Dockerfile", "docker/Dockerfile.dockerignore"} <= set(archive)


def test_the_builder_may_see_all_that_the_build_copies() -> None:
    allowed = re.findall(r"^!(.*)$", (CHECKOUT / "docker/Dockerfile.dockerignore").read_text(), re.MULTILINE)
    for names in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        assert set(names.split()) <= set(allowed)


def test_the_final_stages_run_nothing() -> None:
    """So the builder need not run another architecture's programs."""
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    ours = [stage for stage in stages if not stage.startswith(("--platform=$BUILDPLATFORM", "tools"))]
    assert [re.match(r"\S+ AS (\w+)", stage)[1] for stage in ours] == ["analyzer", "offloader"]  # type: ignore[index]
    assert not any(re.search(r"^RUN", stage, re.MULTILINE) for stage in ours)


def test_kubernetes_client_is_one_version_everywhere() -> None:
    found = {
        re.search(r"^kubernetes==(\S+)", (CHECKOUT / f"requirements/{part}.txt").read_text(), re.MULTILINE)[1]  # type: ignore[index]
        for part in ("control", "offloader")
    }
    assert len(found) == 1
