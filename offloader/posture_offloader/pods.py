"""Why a pod does not run, in the words of Kubernetes and of its own last line. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

_STARTING = frozenset({"ContainerCreating", "PodInitializing"})


def pod_problem(pod: Mapping[str, Any]) -> str:
    """Return what is wrong with the pod; empty where it runs, starts, or has ended well."""
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    said = next((problem for each in containers for problem in _container_problems(each.get("state") or {})), "")
    if said or status.get("phase") != "Failed":
        return said
    return _sentence(status.get("reason"), status.get("message")) or "its pod failed"


def _container_problems(state: Mapping[str, Any]) -> Iterator[str]:
    waiting, terminated = state.get("waiting"), state.get("terminated")
    if waiting and waiting.get("reason") not in _STARTING:
        yield _sentence(waiting.get("reason"), waiting.get("message"))
    if terminated and terminated.get("exitCode"):
        yield _sentence(f"exit code {terminated['exitCode']}", terminated.get("message") or terminated.get("reason"))


def _sentence(reason: str | None, message: str | None) -> str:
    """Return both in one line; of a program's output that is its last line, which says why it ended."""
    last = ((message or "").strip().splitlines() or [""])[-1].strip()
    return ": ".join(part for part in (reason, last) if part)
