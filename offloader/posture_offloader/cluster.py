"""Kubernetes as the offloader needs it: nodes, Jobs and their pods, two ConfigMaps, the Lease, Events.

Every method raises `ClusterError` where the API does not answer or refuses; trying again later may help.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import kubernetes
import urllib3
import yaml
from posture_common.service import LastingError

from posture_edge.job import ANALYZER, EPOCH_LABEL, PART_OF, STREAM_LABEL, TEMPLATE_KEY, TEMPLATE_NAME, job_name

from .handover import Job
from .pods import pod_problem

Object = dict[str, Any]

PLACEMENTS = "posture-placements"
LEASE = "posture-offloader"
_TIMEOUT_S = 5
_SELECTOR = ",".join(f"{name}={value}" for name, value in ANALYZER.items())


class ClusterError(Exception):
    """The API server does not answer or refuses; the message names the object, the cause and the next step."""


class ConflictError(ClusterError):
    """Somebody else has changed or made the object meanwhile."""


class ForbiddenError(ClusterError):
    """We have no right to it, or something like a quota is in the way."""


class RefusedError(ClusterError):
    """The API server will never take this object."""


@dataclass(frozen=True)
class Placements:
    """The ConfigMap posture-placements: each stream's text, the moves that people ask for, and its version."""

    texts: Mapping[str, str]
    asked: Mapping[str, str]
    version: str | None


class Cluster:
    """The cluster that we run in, or that KUBECONFIG names; one namespace of it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        client = _client()
        self._core = kubernetes.client.CoreV1Api(client)
        self._batch = kubernetes.client.BatchV1Api(client)
        self._coordination = kubernetes.client.CoordinationV1Api(client)

    def nodes(self) -> list[Object]:
        """Return the cluster's nodes as the API has them."""
        found: list[Object] = self._ask("nodes", self._core.list_node)["items"]
        return found

    def jobs(self) -> dict[str, dict[int, Job]]:
        """Return the analyzers' Jobs, by stream and epoch."""
        listed = self._ask("Jobs", self._batch.list_namespaced_job, self.namespace, label_selector=_SELECTOR)
        pods = self._ask("pods", self._core.list_namespaced_pod, self.namespace, label_selector=_SELECTOR)
        problems = {_labels(pod).get("job-name"): self._problem(pod) for pod in pods["items"]}
        jobs: dict[str, dict[int, Job]] = defaultdict(dict)
        for job in listed["items"]:
            labels = _labels(job)
            if labels.get(EPOCH_LABEL, "").isdecimal():
                name = job["metadata"]["name"]
                jobs[labels[STREAM_LABEL]][int(labels[EPOCH_LABEL])] = Job(_finished(job), problems.get(name, ""))
        return jobs

    def _problem(self, pod: Object) -> str:
        """Return why the pod does not run; of a volume that cannot be had only Events tell."""
        said = pod_problem(pod)
        if said or pod["status"].get("phase") != "Pending":
            return said
        selector = f"involvedObject.name={pod['metadata']['name']},type=Warning"
        events = self._ask("Events", self._core.list_namespaced_event, self.namespace, field_selector=selector)
        return " ".join(str(events["items"][-1]["message"]).split()) if events["items"] else ""

    def template(self) -> Any:
        """Return what the ConfigMap posture-job holds; None where there is none or it is no YAML."""
        found = self._find(f"ConfigMap {TEMPLATE_NAME}", self._core.read_namespaced_config_map, TEMPLATE_NAME)
        try:
            return yaml.safe_load(((found or {}).get("data") or {}).get(TEMPLATE_KEY, ""))
        except yaml.YAMLError:
            return None

    def create_job(self, job: Object) -> None:
        """Create a Job; one that is there already is left as it is. Raises RefusedError where it can never be."""
        what = f"Job {job['metadata']['name']} from ConfigMap {TEMPLATE_NAME}"
        try:
            self._ask(what, self._batch.create_namespaced_job, self.namespace, job)
        except ConflictError:
            return
        except ForbiddenError as error:
            raise RefusedError(str(error)) from None  # by a quota, for example: it concerns this Job only

    def delete_job(self, stream: str, epoch: int) -> None:
        """Delete a Job and its pod; one that is gone is no error."""
        name = job_name(stream, epoch)
        self._find(f"Job {name}", self._batch.delete_namespaced_job, name, propagation_policy="Background")

    def placements(self) -> Placements:
        """Return the ConfigMap posture-placements; empty where there is none yet."""
        found = self._find(f"ConfigMap {PLACEMENTS}", self._core.read_namespaced_config_map, PLACEMENTS)
        if found is None:
            return Placements({}, {}, None)
        metadata = found["metadata"]
        prefix = "posture.edge/move-"
        annotations = metadata.get("annotations") or {}
        asked = {name.removeprefix(prefix): node for name, node in annotations.items() if name.startswith(prefix)}
        return Placements(found.get("data") or {}, asked, metadata["resourceVersion"])

    def save_placements(self, texts: Mapping[str, str], version: str | None) -> str:
        """Write the ConfigMap, which has to be as it was read, and return its new version; nothing is asked any more.

        Raises ConflictError where it was changed meanwhile.
        """
        metadata = {"name": PLACEMENTS, "labels": PART_OF, "resourceVersion": version}
        body = {"metadata": metadata, "data": dict(texts)}
        what = f"ConfigMap {PLACEMENTS}"
        if version is None:
            written = self._ask(what, self._core.create_namespaced_config_map, self.namespace, body)
        else:
            written = self._ask(what, self._core.replace_namespaced_config_map, PLACEMENTS, self.namespace, body)
        new: str = written["metadata"]["resourceVersion"]
        return new

    def lease(self) -> Object | None:
        """Return the Lease; None where there is none."""
        return self._find(f"Lease {LEASE}", self._coordination.read_namespaced_lease, LEASE)

    def write_lease(self, lease: Object) -> None:
        """Create the Lease, or replace the version that it names. Raises ConflictError where somebody was faster."""
        what = f"Lease {LEASE}"
        if "resourceVersion" in lease["metadata"]:
            self._ask(what, self._coordination.replace_namespaced_lease, LEASE, self.namespace, lease)
        else:
            self._ask(what, self._coordination.create_namespaced_lease, self.namespace, lease)

    def tell(self, stream: str, epoch: int, *, reason: str, message: str, warning: bool = False) -> None:
        """Write an Event about a stream's Job."""
        now = datetime.now(UTC).isoformat()
        event = {
            "metadata": {"generateName": f"{job_name(stream, epoch)}.", "labels": PART_OF},
            "involvedObject": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": job_name(stream, epoch),
                "namespace": self.namespace,
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message[:1000],
            "source": {"component": "posture-offloader"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._ask("Event", self._core.create_namespaced_event, self.namespace, event)

    def _find(self, what: str, call: Callable[..., Any], name: str, **options: Any) -> Object | None:
        try:
            found: Object = self._ask(what, call, name, self.namespace, **options)
        except _AbsentError:
            return None
        return found

    def _ask(self, what: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            # As it came: models of it would cost ten times the time and say the same.
            answer = call(*arguments, **options, _preload_content=False, _request_timeout=_TIMEOUT_S)
            return json.loads(answer.data)
        except kubernetes.client.ApiException as error:
            raise _KINDS.get(error.status, ClusterError)(f"{what}: Kubernetes {_refusal(error)}") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ClusterError(
                f"{what}: the API server does not answer: {error}; nothing moves until it does"
            ) from None


class _AbsentError(ClusterError):
    """There is no such object."""


_KINDS = {404: _AbsentError, 403: ForbiddenError, 409: ConflictError, 400: RefusedError, 422: RefusedError}


def _refusal(error: kubernetes.client.ApiException) -> str:
    try:
        said = json.loads(error.body)["message"]
    except (KeyError, TypeError, ValueError):
        said = str(error.reason)
    hint = ""
    if error.status == 403 and "cannot" in said:
        hint = "; run playbooks/up.yml --tags offloader again, which sets the rights"
    elif error.status in (400, 422):
        hint = "; correct the template of the Jobs and run playbooks/up.yml again"
    return f"refuses ({error.status}): {said}{hint}"


def _client() -> Any:
    configuration = kubernetes.client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            kubernetes.config.load_incluster_config(configuration)
        else:
            kubernetes.config.load_kube_config(client_configuration=configuration)
    except (kubernetes.config.ConfigException, OSError, yaml.YAMLError) as error:
        raise LastingError(
            f"no cluster is known: {error}; run it in a pod with a service account, or set KUBECONFIG"
        ) from None
    configuration.retries = 0
    return kubernetes.client.ApiClient(configuration)


def _labels(found: Mapping[str, Any]) -> Mapping[str, str]:
    return found["metadata"].get("labels") or {}


def _finished(job: Mapping[str, Any]) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)
