"""The checkout as somebody would have it who cloned it now: what git knows or would take, changes included."""

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def files() -> list[str]:
    """Return the paths of its files within the checkout."""
    command = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    return [name for name in listed if name and (CHECKOUT / name).is_file()]


def copy(names: Iterable[str], target: Path) -> None:
    """Copy some of its files into a directory."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, target / name, follow_symlinks=False)
