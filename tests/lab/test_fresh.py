"""The README's commands, exactly, on an empty machine: Debian with systemd, ssh, sudo, git and make, nothing more."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.settings import from_environment
from tests.support.checkout import CHECKOUT, files

_SECTION = "Try it on one machine"
_SOURCE = "/root/published"


@pytest.fixture
def fresh() -> Iterator[Machine]:
    """The empty machine, newly made, in a lab of its own or beside those of `make lab`."""
    lab = Lab(from_environment())
    found = lab.is_up
    try:
        lab.up(["fresh"])
        yield lab.machine("fresh")
    finally:
        if not found:
            lab.down()


@pytest.mark.timeout(1800)
def test_the_readme_does_what_it_says(fresh: Machine) -> None:
    assert not fresh.shell("command -v python3 pip ansible || true")
    _publish(fresh)
    blocks = _commands()
    assert blocks[0][0] == "apt-get install -y git make"
    directory = "/root"
    for command in [command.replace("REPOSITORY", _SOURCE) for block in blocks for command in block]:
        print(f"$ {command}", flush=True)
        # Each in the directory that the one before ended in, as in a terminal; nothing to type into.
        answer = fresh.shell(f"cd {directory} && {{ {command}\n}} </dev/null 2>&1 && echo && pwd", timeout=1500)
        directory = answer.splitlines()[-1]
        if command == "make up":
            assert _rows(fresh) >= 5
            _copy_photo(fresh, directory)
        if command.startswith("cp my-photo.jpg"):
            fresh.shell(f"for try in $(seq 100); do [ $({_COUNT}) -ge 6 ] && exit; sleep 0.1; done; exit 1")
    assert "posture" not in fresh.shell("systemctl list-units --plain --no-legend 'posture*'")


_COUNT = (
    "runuser -u postgres -- psql -h /var/lib/posture/database -p 5433 -tAc"
    " 'SELECT count(*) FROM posture_results' posture"
)


def _rows(machine: Machine) -> int:
    return int(machine.shell(_COUNT))


def _commands() -> list[list[str]]:
    """Return the commands of the README's section, block by block; a comment at a line's end says what to expect."""
    text = (CHECKOUT / "README.md").read_text()
    section = text.split(f"## {_SECTION}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, flags=re.DOTALL)
    return [
        [re.sub(r"\s+#.*", "", line[2:]) for line in block.splitlines() if line.startswith("$ ")] for block in blocks
    ]


def _publish(machine: Machine) -> None:
    """Make a repository on the machine of the checkout as it is, changes that are not committed included."""
    tar = subprocess.run(
        ["tar", "--create", "--gzip", f"--directory={CHECKOUT}", "--files-from=-"],
        input="\n".join(files()).encode(),
        capture_output=True,
        check=True,
    ).stdout
    (machine.root / "root/published.tar.gz").write_bytes(tar)
    identity = "-c user.name=lab -c user.email=lab@localhost"
    machine.shell(
        f"mkdir {_SOURCE} && cd {_SOURCE} && tar -xzf ../published.tar.gz && git init -q && git add -A"
        f" && git {identity} commit -q -m published"
    )


def _copy_photo(machine: Machine, directory: str) -> None:
    machine.shell(f"cp {_SOURCE}/samples/camera.jpg {directory}/my-photo.jpg && printf x >>{directory}/my-photo.jpg")
