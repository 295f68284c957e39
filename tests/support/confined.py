"""Runs a command under the system call filters of a unit: `python -m tests.support.confined UNIT COMMAND...`.

systemd itself has to be process 1 for that. What its directives mean it says here too (`systemd-analyze
syscall-filter`), and libseccomp, which it uses, loads that.
"""

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

from tests.support.units import directives

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_MASKED_EQ = 7
_EXEC, _WRITE = 4, 2  # PROT_EXEC, PROT_WRITE
_SHM_EXEC = 0o100000


class _Argument(ctypes.Structure):
    _fields_ = (("number", ctypes.c_uint), ("is", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def command(unit: Path, *words: str | Path) -> list[str]:
    """Return what runs the words under the unit's filters."""
    return [sys.executable, "-m", "tests.support.confined", str(unit), *map(str, words)]


def allowed(unit: Path) -> set[str]:
    """Return the names of the system calls that the unit lets through."""
    calls: set[str] = set()
    for value in directives(unit)["SystemCallFilter"]:
        for word in value.removeprefix("~").split():
            if value.startswith("~"):
                calls -= _calls(word)
            else:
                calls |= _calls(word)
    # systemd adds these to whatever is allowed: without them nothing can be started.
    return calls | _calls("@default") | {"execve"}


def _calls(name: str) -> set[str]:
    """Return the system calls of a group, with those of the groups in it."""
    if not name.startswith("@"):
        return {name}
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", name],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.defpath},
    ).stdout
    members = [line.strip() for line in said.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return set().union(*(_calls(member) for member in members))


class _Filter:
    def __init__(self, otherwise: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(otherwise)))

    def add(self, action: int, call: str, *arguments: _Argument) -> None:
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return  # another architecture's
        array = (_Argument * len(arguments))(*arguments)
        code = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, ctypes.c_uint(len(arguments)), array
        )
        if code:
            raise OSError(-code, f"{call}: {os.strerror(-code)}")

    def load(self) -> None:
        code = self._library.seccomp_load(self._context)
        if code:
            raise OSError(-code, os.strerror(-code))


def _has(number: int, bits: int) -> _Argument:
    return _Argument(number, _MASKED_EQ, bits, bits)


def confine(unit: Path) -> None:
    """Put this process under the unit's filters, for good."""
    found = directives(unit)
    calls, refused = allowed(unit), _ERRNO | errno.EPERM
    assert found["SystemCallErrorNumber"] == ["EPERM"]
    if found["RestrictNamespaces"] == ["yes"]:
        calls -= {"unshare", "setns"}
    listed = _Filter(refused)
    for call in sorted(calls):
        # Its flags are out of a filter's sight: systemd lets programs think that the kernel is older.
        listed.add(_ERRNO | errno.ENOSYS if call == "clone3" else _ALLOW, call)
    if found.get("MemoryDenyWriteExecute") == ["yes"]:
        code = _Filter(_ALLOW)
        code.add(refused, "mmap", _has(2, _EXEC | _WRITE))
        code.add(refused, "mprotect", _has(2, _EXEC))
        code.add(refused, "pkey_mprotect", _has(2, _EXEC))
        code.add(refused, "shmat", _has(2, _SHM_EXEC))
        code.load()
    listed.load()


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (the test names it)
