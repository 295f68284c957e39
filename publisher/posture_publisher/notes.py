"""Which files of a directory were taken, noted beside the spool, so that a restart goes on where it was.

A line about Pi and round, then one line for each file taken in it:

    {"directory": "/samples", "pi_id": "pi1", "round": 2}
    ["astronaut.png", 791555, 1732300000000000000]        name, size in bytes, time of last change in ns
"""

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from .folder import File

log = logging.getLogger(__name__)


class Notes:
    """The notes of one Pi about one directory; those of another Pi or directory are replaced.

    Raises:
        OSError: they cannot be written; from the methods, too.
    """

    def __init__(self, path: Path, directory: Path, pi_id: str) -> None:
        self._path = path
        self._about = {"directory": str(directory), "pi_id": pi_id}
        self.round = 1
        self.taken: set[File] = set()
        self._read()
        self._file = self._rewrite()

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # what is not noted is taken again, under the same image_id
            self._file.close()

    def add(self, file: File) -> None:
        """Note that a file was taken."""
        self.taken.add(file)
        self._file.write(_line(file))
        with suppress(OSError):  # it stays buffered and is tried again with the next
            self._file.flush()

    def keep_only(self, files: set[File]) -> None:
        """Forget all but these."""
        self.taken &= files
        self.close()
        self._file = self._rewrite()

    def next_round(self) -> None:
        """Begin the next round: nothing is taken in it yet."""
        self.round += 1
        self.taken.clear()
        self.close()
        self._file = self._rewrite()

    def _read(self) -> None:
        try:
            first, *lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
            # Notes that name no Pi are from before they did: the spool beside them was this Pi's.
            about = self._about | json.loads(first)
            if any(about[name] != value for name, value in self._about.items()):
                return
            self.round = int(about["round"])
            for line in lines:
                name, size, changed_ns = json.loads(line)
                self.taken.add(File(name, size, changed_ns))
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            # A power cut tore it: what is not noted is taken again under the same image_id.
            log.warning("%s is damaged: pictures that it no longer names are sent once more", self._path)

    def _rewrite(self) -> TextIO:
        """Replace the file by what is known, in one step, and return it open for appending."""
        part = self._path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(self._about | {"round": self.round}) + "\n")
            file.writelines(_line(file_taken) for file_taken in self.taken)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._path)
        return self._path.open("a", encoding="utf-8")


def _line(file: File) -> str:
    return json.dumps([file.name, file.size, file.changed_ns]) + "\n"
