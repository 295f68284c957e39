# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that read what Kubernetes answers: what to change on its nodes, why pods do not run, why a request failed."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

OWNS = "posture.edge/owns"
# What is looked for in a module's message, and what to do about it; the first that is found counts.
_PROBLEMS = {
    r"Failed to import the required Python library": """
        install what requirements/control.txt lists for the Python that runs there; on the machine that runs the
        playbooks 'make control' does it""",
    r"being terminated": """
        it is still being removed: wait until 'kubectl get namespace' no longer shows it, and run this again""",
    r"violates PodSecurity": """
        the namespace forbids such pods: label it pod-security.kubernetes.io/enforce=privileged, or set
        posture_images_claim, which needs no folder of the nodes""",
    r"[Ff]orbidden|\b403\b": """
        the user of posture_kubeconfig may not do that: take an administrator's, with k3s that of
        /etc/rancher/k3s/k3s.yaml""",
    r"[Uu]nauthorized|\b401\b": """
        the cluster does not know the user of posture_kubeconfig, or no longer: fetch the kubeconfig anew, with k3s from
        /etc/rancher/k3s/k3s.yaml""",
    r"certificate": """
        the cluster's certificate is not of the authority that posture_kubeconfig names: fetch the kubeconfig anew, as
        after each new installation of the cluster""",
    r"refused|[Tt]imed out|timeout|unreachable|No route|name resolution|Name or service|Max retries|Connection": """
        the cluster cannot be reached: start it, correct the server's address in posture_kubeconfig (that of k3s says
        127.0.0.1 at first), or open the way to it""",
    r"kube-config|while (parsing|scanning)|context|Could not create API client": """
        that is no kubeconfig with a current context: correct posture_kubeconfig or posture_kube_context; what it has is
        shown by 'kubectl config get-contexts'""",
}
# Why a pod does not run, and what to do about it.
_ADVICE = {
    r"ImagePull|InvalidImageName|ErrImageNeverPull": """
        see whether that node reaches the registry of posture_image, and whether the registry still has the image
        ('make build' makes it again); one that speaks plain http has to be named in the node's
        /etc/rancher/k3s/registries.yaml or in containerd's settings, one with a login needs
        posture_registry_username and posture_registry_password""",
    r"Unschedulable": "make room on a node, or see with 'kubectl describe nodes' what keeps the pod away",
    r"OOMKilled": "it needs more memory than its limit: raise analyzer_job_resources or offloader_resources",
    r"CreateContainer": "see 'kubectl -n {namespace} describe pod {name}'",
    r"": "see 'kubectl -n {namespace} logs {name}'",
}
_LONGEST = 400
# A pod waits for these by itself; every other reason needs somebody.
_GOOD_REASONS = frozenset({"ContainerCreating", "PodInitializing", "Pulling"})


def cluster_problem(said: str) -> str:
    """Return the cause that a module of kubernetes.core named, and the next step."""
    cause = _cause(said)
    advice = next((advice for pattern, advice in _PROBLEMS.items() if re.search(pattern, said)), None)
    if advice is None:
        return f"{cause}. The whole answer is shown with -v."
    return f"{cause}: {' '.join(advice.split())}."


def node_changes(nodes: Iterable[Mapping[str, Any]], wanted: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what to change so that each node has what is wanted of it, and of what we added nothing else.

    `wanted` has for each name of a node its labels (`role=worker`) and taints (`dedicated=master:NoSchedule`). The
    annotation `posture.edge/owns` records what we added, so what was there before stays ours to leave alone.

    `patches`: a JSON patch for each node that is to change. `conflicts`: labels and taints of others in the way.
    `unknown`: names that the cluster does not have.
    """
    known = {node["metadata"]["name"]: node for node in nodes}
    patches = [{"name": name, "patch": _patch(node, wanted.get(name, ()))} for name, node in known.items()]
    conflicts = [
        {"node": name, "wanted": words, "has": other}
        for name, node in known.items()
        for words in wanted.get(name, ())
        if (other := _in_the_way(node, words))
    ]
    return {
        "patches": [each for each in patches if each["patch"]],
        "conflicts": conflicts,
        "unknown": [name for name in wanted if name not in known],
    }


def pod_problems(pods: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return each pod that does not run, as its `name`, `node`, `reason` and `message`."""
    found = []
    for pod in pods:
        reason, message = _trouble(pod.get("status") or {})
        if reason:
            node = (pod.get("spec") or {}).get("nodeName") or ""
            found.append({"name": pod["metadata"]["name"], "node": node, "reason": reason, "message": message})
    return found


def pod_advice(problem: Mapping[str, str], namespace: str) -> str:
    """Return a pod's problem, one of `pod_problems`, as a sentence with the next step."""
    advice = next(advice for pattern, advice in _ADVICE.items() if re.search(pattern, problem["reason"]))
    where = f" on node {problem['node']}" if problem["node"] else ""
    said = f" ({problem['message']})" if problem["message"] else ""
    step = " ".join(advice.format(name=problem["name"], namespace=namespace).split())
    return f"pod {problem['name']}{where}: {problem['reason']}{said}: {step}."


def _cause(said: str) -> str:
    """Return the message in the cluster's answer, which modules quote as JSON in bytes, else what there is of text."""
    quoted = re.search(r"(b(['\"]).*\2)", said, re.DOTALL)
    try:
        answer = json.loads(ast.literal_eval(quoted.group(1))) if quoted else {}
        if answer.get("message"):
            return _shorten(str(answer["message"]))
    except (ValueError, SyntaxError, AttributeError):
        pass
    text = re.sub(r"^(Task failed: |Module failed: |Exception ')+", "", said.strip())
    return _shorten(" ".join(text.split("\nHTTP response headers")[0].split()) or "the cluster said nothing")


def _patch(node: Mapping[str, Any], wanted: Sequence[str]) -> list[dict[str, Any]]:
    metadata = node["metadata"]
    labels, annotations = metadata.get("labels"), metadata.get("annotations")
    taints = (node.get("spec") or {}).get("taints") or []
    present = [*(f"{key}={value}" for key, value in (labels or {}).items()), *map(_words, taints)]
    owned = [words for words in (annotations or {}).get(OWNS, "").split(",") if words]
    added = [words for words in wanted if words not in present]
    removed = [words for words in owned if words in present and words not in wanted]
    owns = [words for words in wanted if words in owned or words in added]
    patch: list[dict[str, Any]] = []
    for words in [*added, *removed]:
        if not _is_taint(words):
            key, value = words.split("=", 1)
            patch += _member("/metadata/labels", labels, key, value if words in added else None)
            labels = {**(labels or {}), key: value}
    patch += _taints(taints, added, removed)
    if owns != owned:
        patch += _member("/metadata/annotations", annotations, OWNS, ",".join(owns) or None)
    return patch


def _member(path: str, parent: Mapping[str, str] | None, key: str, value: str | None) -> list[dict[str, Any]]:
    """Set a member, or remove it where the value is None."""
    place = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
    if value is None:
        return [{"op": "remove", "path": place}]
    made = [] if parent is not None else [{"op": "add", "path": path, "value": {}}]
    return [*made, {"op": "add", "path": place, "value": value}]


def _taints(taints: list[Any], added: Sequence[str], removed: Sequence[str]) -> list[dict[str, Any]]:
    """Add and remove taints; refused by the cluster where another hand changed them meanwhile."""
    kept = [taint for taint in taints if _words(taint) not in removed]
    new = kept + [_taint(words) for words in added if _is_taint(words)]
    if new == taints:
        return []
    seen = [{"op": "test", "path": "/spec/taints", "value": taints}] if taints else []
    return [*seen, {"op": "add", "path": "/spec/taints", "value": new}]


def _in_the_way(node: Mapping[str, Any], words: str) -> str:
    """What another hand put where a label or taint is wanted."""
    if _is_taint(words):
        wanted = _taint(words)
        taints = [
            _words(taint)
            for taint in (node.get("spec") or {}).get("taints") or []
            if (taint["key"], taint["effect"]) == (wanted["key"], wanted["effect"])
        ]
        return next((each for each in taints if each != words), "")
    key = words.partition("=")[0]
    labels = node["metadata"].get("labels") or {}
    return f"{key}={labels[key]}" if key in labels and f"{key}={labels[key]}" != words else ""


def _is_taint(words: str) -> bool:
    return ":" in words


def _words(taint: Mapping[str, Any]) -> str:
    return f"{taint['key']}={taint.get('value') or ''}:{taint['effect']}"


def _taint(words: str) -> dict[str, str]:
    pair, effect = words.rsplit(":", 1)
    key, value = pair.split("=", 1)
    return {"key": key, "value": value, "effect": effect}


def _trouble(status: Mapping[str, Any]) -> tuple[str, str]:
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for container in containers:
        state = container.get("state") or {}
        ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
        waiting = state.get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _GOOD_REASONS:
            # What it said when it ended tells more than that it is to be started again.
            return str(waiting["reason"]), _one_line(ended.get("message") or waiting.get("message"))
        if ended and ended.get("exitCode") != 0:
            return str(ended.get("reason") or "Error"), _one_line(ended.get("message"))
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("reason")), _one_line(condition.get("message"))
    if status.get("phase") == "Failed":
        return str(status.get("reason") or "Failed"), _one_line(status.get("message"))
    return "", ""


def _one_line(text: object) -> str:
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return _shorten(lines[-1]) if lines else ""


def _shorten(line: str) -> str:
    line = line.rstrip(".")
    return line if len(line) <= _LONGEST else f"... {line[-_LONGEST:]}"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file by name."""
        return {
            "cluster_problem": cluster_problem,
            "node_changes": node_changes,
            "pod_advice": pod_advice,
            "pod_problems": pod_problems,
        }
