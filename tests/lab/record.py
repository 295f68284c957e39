"""What a lab wrote down before it made anything: enough for a later process to find and undo all of it."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from tests.lab.settings import Settings, from_environment
from tests.lab.tools import LabError

_FILE = "lab.json"
_LOCK = "lock"


@dataclass
class Record:
    """A lab's settings; saved before anything is made."""

    settings: Settings
    complete: bool = False  # `up` came to its end

    @classmethod
    def load(cls, state: Path) -> Self | None:
        """Return the record in a state directory, None where there is no lab."""
        try:
            content = json.loads((state / _FILE).read_text())
        except FileNotFoundError:
            return None
        words = {f"POSTURE_LAB_{name.upper()}": value for name, value in content["settings"].items()}
        return cls(from_environment(words), content["complete"])

    def save(self) -> None:
        """Write it, whole or not at all."""
        self.settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = {name: str(value) for name, value in asdict(self.settings).items()}
        part = self.settings.state / f"{_FILE}.part"
        part.write_text(json.dumps({"settings": settings, "complete": self.complete}, indent=2))
        part.rename(self.settings.state / _FILE)


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Let nobody else change this lab meanwhile; the kernel ends this with the process.

    Makes the state directory, and takes it away again where no lab is in it at the end.
    """
    found = {path.name for path in settings.state.iterdir()} if settings.state.exists() else set()
    if found and not found & {_FILE, _LOCK}:
        raise LabError(f"{settings.state} is not a lab's: name another directory with POSTURE_LAB_STATE, or remove it")
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (settings.state / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"another command changes the lab in {settings.state} right now: wait for it") from None
        try:
            yield
        finally:
            if not (settings.state / _FILE).exists():
                (settings.state / _LOCK).unlink()
                settings.state.rmdir()
