# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Kubernetes Job of one epoch of a stream, from the template that a lab may have changed. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

Object = dict[str, Any]

PART_OF = {"app.kubernetes.io/part-of": "posture-edge"}
ANALYZER = {**PART_OF, "app.kubernetes.io/name": "posture-analyzer"}
STREAM_LABEL, EPOCH_LABEL = "posture.edge/stream", "posture.edge/epoch"
TEMPLATE_NAME, TEMPLATE_KEY = "posture-job", "posture-job.yaml"
STREAM_PLACEHOLDER = "$(POSTURE_STREAM)"
"""Where the template says this in its pod, the stream's name stands: in the name of its Secret, and of its account."""
_CONTAINER = "analyzer"


class TemplateError(ValueError):
    """The template is no Job that could run an analyzer; the message says why."""


def job_name(stream: str, epoch: int) -> str:
    """Return the name of the Job of a stream's epoch."""
    return f"posture-{stream}-{epoch}"


def render(template: Any, *, stream: str, epoch: int, node: str) -> Object:
    """Return the Job that analyses the stream on that node, with its name, labels, node and variables filled in.

    Whatever else the template says stays, with the stream's name for `STREAM_PLACEHOLDER`. A name, namespace or choice
    of nodes of its own gives way, and so do restarts and copies: one analyzer has an epoch, and one that ended is
    replaced by the next. Raises TemplateError.
    """
    if not isinstance(template, Mapping) or template.get("kind") != "Job":
        raise TemplateError(f"{_where()} holds no Job")
    job = copy.deepcopy(dict(template))
    job.setdefault("apiVersion", "batch/v1")
    labels = {**ANALYZER, STREAM_LABEL: stream, EPOCH_LABEL: str(epoch)}
    metadata = _child(job, "metadata")
    metadata["name"] = job_name(stream, epoch)
    _child(metadata, "labels").update(labels)
    pod = _pod_spec(job)
    pod.update(_named(pod, stream))
    _child(_child(job["spec"]["template"], "metadata"), "labels").update(labels)
    _drop(metadata, "namespace", "generateName")
    _drop(job["spec"], "parallelism", "completions", "completionMode", "suspend")
    _drop(pod, "nodeSelector", "affinity")
    job["spec"]["backoffLimit"] = 0
    job["spec"].setdefault("ttlSecondsAfterFinished", 60)
    pod["restartPolicy"] = "Never"
    pod["nodeName"] = node
    container = _container(pod)
    container["env"] = _with(
        container.get("env") or [], {"POSTURE_STREAM": stream, "POSTURE_EPOCH": str(epoch), "POSTURE_NODE": node}
    )
    return job


def _with(variables: Iterable[Mapping[str, Any]], values: Mapping[str, str]) -> list[Object]:
    others = [dict(each) for each in variables if each.get("name") not in values]
    return [*others, *({"name": name, "value": value} for name, value in values.items())]


def _named(value: Any, stream: str) -> Any:
    if isinstance(value, str):
        return value.replace(STREAM_PLACEHOLDER, stream)
    if isinstance(value, list):
        return [_named(each, stream) for each in value]
    return {key: _named(each, stream) for key, each in value.items()} if isinstance(value, dict) else value


def _drop(parent: Object, *keys: str) -> None:
    for key in keys:
        parent.pop(key, None)


def _pod_spec(job: Mapping[str, Any]) -> Object:
    found: Any = job
    for key in ("spec", "template", "spec"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, dict):
        raise TemplateError(f"{_where()} has no spec.template.spec")
    return found


def _container(pod: Mapping[str, Any]) -> Object:
    containers = [each for each in pod.get("containers") or [] if isinstance(each, dict)]
    named = [each for each in containers if each.get("name") == _CONTAINER]
    found = named or (containers if len(containers) == 1 else [])
    if len(found) != 1:
        names = ", ".join(str(each.get("name")) for each in containers) or "none"
        raise TemplateError(f"{_where()} needs one container called {_CONTAINER}, and has {names}")
    return found[0]


def _child(parent: Object, key: str) -> Object:
    child = parent.get(key)
    if child is None:
        child = parent[key] = {}
    if not isinstance(child, dict):
        raise TemplateError(f"{_where()}: {key} is no mapping")
    return child


def _where() -> str:
    return f"ConfigMap {TEMPLATE_NAME}, key {TEMPLATE_KEY}"
