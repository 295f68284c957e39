"""Directories that cannot be used."""

import os
import pwd
from pathlib import Path


def unwritable(directory: Path) -> tuple[str, ...]:
    """Make the directory unwritable; return the wrapper under which not even root may write there."""
    directory.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        directory.chmod(0o555)
        return ()
    nobody = pwd.getpwnam("nobody")
    os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    directory.chmod(0o755)
    rights = "-dac_override,-dac_read_search"
    return ("setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", "--")
