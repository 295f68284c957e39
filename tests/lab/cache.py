"""What is slow to make and the same every time, kept outside the checkout under a key of what it is made from.

`~/.cache/posture-edge/lab/<name>-<key>`. An entry is complete or absent; it may be deleted whenever no lab
is up, and goes by itself when a newer one is made two weeks after its last use.
"""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

_UNUSED_S = 14 * 24 * 3600


def directory() -> Path:
    """Return where the entries are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posture-edge/lab"


def key_of(*parts: str | Path) -> str:
    """Return a key of texts and of the contents of files and folders."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(f"text {len(part)} {part}".encode())
            continue
        for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if file.is_file():
                content = file.read_bytes()
                digest.update(f"file {file.name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:12]


def entry(name: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return the entry's path; where it is absent, `make` fills an empty directory that then becomes the entry."""
    path = directory() / f"{name}-{key}"
    if path.exists():
        os.utime(path)
        return path
    directory().mkdir(parents=True, exist_ok=True)
    with (directory() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be making it: then wait for that one
        if not path.exists():
            part = directory() / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.rename(path)
            _forget_old(name)
    return path


def _forget_old(name: str) -> None:
    """Remove what was made under the same name and not used for two weeks, unless a lab that is up has it mounted."""
    mounts = Path("/proc/self/mountinfo").read_text()
    for old in directory().glob(f"{name}-{'[0-9a-f]' * 12}"):
        if time.time() - old.stat().st_mtime > _UNUSED_S and f"{old}/" not in mounts:
            shutil.rmtree(old)


def log_of(name: str) -> Path:
    """Return the file that the making of an entry writes its output to."""
    return directory() / f"{name}.log"
