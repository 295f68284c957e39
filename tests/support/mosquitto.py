"""Finds the two mosquitto versions that the tests run against, and fetches the one that the system does not have.

Old is 2.0.11 (Debian 12, Ubuntu 22.04: the receive maximum is ignored, a takeover is not announced), new is 2.0.15 or
later. A missing one is downloaded by the machine's own apt, from the archive that it is configured for, into a cache
outside the checkout; nothing is installed.
"""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

OLD, NEW = "old", "new"
# For each archive that apt may use: the suite to take mosquitto from, and those that its libraries are in.
_SUITES = {
    ("Debian", OLD): ("bookworm",),
    ("Debian", NEW): ("bookworm-backports", "bookworm"),
    ("Ubuntu", OLD): ("jammy",),
    ("Ubuntu", NEW): ("noble",),
}


@dataclass(frozen=True)
class Mosquitto:
    """A broker that can be started: `environment` is what its libraries need."""

    binary: Path
    version: tuple[int, ...]
    environment: dict[str, str]

    @property
    def plugin(self) -> Path:
        """Its dynamic-security plugin, which its package has too."""
        found = next(self.binary.resolve().parents[1].glob("lib/**/mosquitto_dynamic_security.so"), None)
        if found is None:
            raise RuntimeError(f"{self.binary} has no mosquitto_dynamic_security.so beside it in ../lib")
        return found


def find_mosquitto(which: str) -> Mosquitto:
    """Return the old or the new mosquitto: from POSTURE_TEST_MOSQUITTO_<WHICH>, the system, or the archive.

    Raises RuntimeError with the command to type where none of them has it.
    """
    variable = f"POSTURE_TEST_MOSQUITTO_{which.upper()}"
    if given := os.environ.get(variable):
        return _probe(Path(given), environment={})
    system = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if system:
        installed = _probe(Path(system), environment={})
        if _is_wanted(installed, which):
            return installed
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posture-edge" / "mosquitto" / which
    if not cache.exists():
        _download(which, cache, variable)
    found = _probe(cache / "usr/sbin/mosquitto", environment={"LD_LIBRARY_PATH": _library_path(cache)})
    if not _is_wanted(found, which):
        raise RuntimeError(
            f"{found.binary} is mosquitto {'.'.join(map(str, found.version))}, not the {which} one: "
            f"rm -r {cache} and run again, or set {variable} to a mosquitto's path"
        )
    return found


def _is_wanted(found: Mosquitto, which: str) -> bool:
    return found.version == (2, 0, 11) if which == OLD else found.version >= (2, 0, 15)


def _probe(binary: Path, *, environment: dict[str, str]) -> Mosquitto:
    answer = subprocess.run([binary, "-h"], env=os.environ | environment, capture_output=True, text=True, check=False)
    version = re.search(r"mosquitto version (\d+)\.(\d+)\.(\d+)", answer.stdout)
    if not version:
        raise RuntimeError(f"{binary} does not start as a mosquitto: {(answer.stderr or answer.stdout).strip()}")
    return Mosquitto(binary, tuple(int(part) for part in version.groups()), environment)


def _library_path(root: Path) -> str:
    return ":".join(sorted({str(library.parent) for library in root.rglob("*.so.*")}))


def _download(which: str, target: Path, variable: str) -> None:
    origin, archive = _apt_archive(variable)
    suite, *others = _SUITES[origin, which]
    keyring = Path(f"/usr/share/keyrings/{origin.lower()}-archive-keyring.gpg")
    signed = f"[signed-by={keyring}] " if keyring.exists() else ""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        work = Path(directory)
        (work / "lists/partial").mkdir(parents=True)
        (work / "archives/partial").mkdir(parents=True)
        (work / "status").touch()  # nothing is installed: else apt would want the installed version, if that is newer
        components = "main universe" if origin == "Ubuntu" else "main"
        sources = [f"deb {signed}{archive} {name} {components}\n" for name in (suite, *others)]
        (work / "sources.list").write_text("".join(sources))
        options = [
            option
            for setting in (
                f"Dir::Etc::sourcelist={work}/sources.list",
                "Dir::Etc::sourceparts=/dev/null",
                f"Dir::State::lists={work}/lists",
                f"Dir::State::status={work}/status",
                f"Dir::Cache={work}",
                f"APT::Default-Release={suite}",
                f"APT::Sandbox::User={os.environ.get('USER', 'root')}",
            )
            for option in ("-o", setting)
        ]

        def apt(program: str, *arguments: str) -> str:
            command = [program, *options, *arguments]
            ran = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise RuntimeError(
                    f"mosquitto ({which}) cannot be fetched from {suite}: {ran.stderr.strip()}; "
                    f"install it by hand and set {variable} to its path"
                )
            return ran.stdout

        apt("apt-get", "update")
        depends = re.findall(r"^ +Depends: <?(lib[\w.+-]+)>?$", apt("apt-cache", "depends", "mosquitto"), re.MULTILINE)
        apt("apt-get", "download", "mosquitto", *(name for name in depends if name != "libc6"))
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, work / "root"], check=True)
        (work / "root").rename(target)


def _apt_archive(variable: str) -> tuple[str, str]:
    """Return the origin (Debian, Ubuntu) and the address of the archive that this machine's apt uses."""
    try:
        listing = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(COMPONENT)", "Created-By: Packages"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            f"no mosquitto of the wanted version here and no apt to fetch it with ({error}): set {variable} to its path"
        ) from error
    for line in listing.splitlines():
        origin, _, rest = line.partition(" ")
        uri, _, component = rest.partition(" ")
        if component == "main" and (origin, OLD) in _SUITES and "security" not in uri:
            return origin, uri
    raise RuntimeError(f"apt knows no Debian or Ubuntu archive: run apt-get update, or set {variable} to a mosquitto")
