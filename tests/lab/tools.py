"""Runs the system's tools and shows how long work is going on; a failure names the command and its last words."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

# Ends with whoever started it, in mounts and processes of its own: a killed build leaves nothing running or mounted.
_CONTAINED = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


class LabError(Exception):
    """The lab cannot do what it was asked: the text names the object, the cause and the next step."""


def run(*command: str | Path, stdin: str | BinaryIO = "", timeout: float = 60) -> str:
    """Run a command that ends within `timeout` seconds and return what it printed."""
    words = [str(word) for word in command]
    source: dict[str, Any] = {"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}
    try:
        done = subprocess.run(words, **source, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise LabError(
            f"{words[0]} is not on this machine: ansible-playbook -i inventory/local tests/lab/packages.yml"
        ) from None
    except subprocess.TimeoutExpired:
        raise LabError(f"not done within {timeout:g} s: {' '.join(words)}") from None
    if done.returncode:
        raise LabError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip() or f'exit {done.returncode}'}")
    printed: str = done.stdout
    return printed


def build(*command: str | Path, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a long command whose output goes to the end of `log`, at most an hour."""
    words = [*_CONTAINED, *(str(word) for word in command)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=cwd)
        try:
            code = process.wait(timeout=3600)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if code:
        words = log.read_text(errors="replace").splitlines()[-15:]
        raise LabError(f"{' '.join(map(str, command))[:200]} failed; the end of {log}:\n" + "\n".join(words))


@contextmanager
def step(what: str, *, note: str = "") -> Iterator[None]:
    """Print what begins, that it still goes on every 15 s, and how long it took."""
    begin = time.monotonic()
    done = threading.Event()

    def tell() -> None:
        while not done.wait(15):
            say(f"  ... {what}: {time.monotonic() - begin:.0f} s{note and f' ({note})'}")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
    say(f"{what}: {time.monotonic() - begin:.1f} s")


def say(text: str) -> None:
    """Print a line to standard error at once: standard output belongs to what a command answers."""
    print(text, file=sys.stderr, flush=True)
