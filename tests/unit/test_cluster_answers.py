"""What is read from Kubernetes' answers: what to change on nodes, why pods do not run, why a request failed."""

import copy
import json
from typing import Any

import pytest

from plugins.filter.cluster_answers import OWNS, cluster_problem, node_changes, pod_advice, pod_problems

LABEL, TAINT = "role=worker", "dedicated=master:NoSchedule"
Object = dict[str, Any]


def node(
    labels: dict[str, str] | None = None, *, owns: str = "", taints: tuple[str, ...] = (), name: str = "agx"
) -> Object:
    """Return a node with these labels and taints, of which those in `owns` were added by us."""
    annotations = {"other": "1"} | ({OWNS: owns} if owns else {})
    metadata = {"name": name, "labels": {"os": "linux"} | (labels or {}), "annotations": annotations}
    spec = {"taints": [dict(zip(("key", "value", "effect"), _parts(each), strict=True)) for each in taints]}
    return {"metadata": metadata, "spec": spec if taints else {}}


def _parts(taint: str) -> list[str]:
    pair, effect = taint.split(":")
    return [*pair.split("="), effect]


def patched(before: Object, patch: list[Object]) -> Object:
    """Return the node as the cluster makes it of a JSON patch."""
    after = copy.deepcopy(before)
    for step in patch:
        *path, last = (part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:])
        parent = after
        for part in path:
            parent = parent[part]
        match step["op"]:
            case "test":
                assert parent[last] == step["value"]
            case "add":
                parent[last] = step["value"]
            case "remove":
                del parent[last]
    return after


def changed(before: Object, wanted: list[str]) -> Object | None:
    """Return what becomes of a node of which this is wanted; None where nothing is to be done."""
    patches = node_changes([before], {"agx": wanted})["patches"]
    return patched(before, patches[0]["patch"]) if patches else None


@pytest.mark.parametrize("wanted", [[LABEL], [TAINT], [LABEL, TAINT]])
def test_what_is_wanted_is_added_once_and_taken_away_again(wanted: list[str]) -> None:
    before = node()
    after = changed(before, wanted)
    assert after is not None
    assert after["metadata"]["annotations"][OWNS] == ",".join(wanted)
    assert ("role" in after["metadata"]["labels"]) == (LABEL in wanted)
    assert changed(after, wanted) is None
    gone = changed(after, [])
    assert gone is not None
    assert gone["metadata"] == before["metadata"]
    assert not gone["spec"].get("taints")
    assert changed(gone, []) is None


def test_what_was_there_before_is_not_ours() -> None:
    before = node({"role": "worker"}, taints=(TAINT,))
    assert changed(before, [LABEL, TAINT]) is None
    assert changed(before, []) is None


def test_taints_of_others_stay() -> None:
    before = node(taints=("a=b:NoExecute",))
    after = changed(before, [TAINT])
    assert after == node(taints=("a=b:NoExecute", TAINT), owns=TAINT)
    assert changed(after, []) == before


def test_what_another_hand_took_away_is_added_again_and_its_record_goes_where_it_is_not_wanted() -> None:
    lost = node(owns=LABEL)
    assert changed(lost, [LABEL]) == node({"role": "worker"}, owns=LABEL)
    assert changed(lost, []) == node()
    assert changed(node({"role": "db"}, owns=LABEL), []) == node({"role": "db"})


def test_a_node_without_any_labels_and_annotations() -> None:
    after = changed({"metadata": {"name": "agx"}, "spec": {}}, [LABEL])
    assert after == {
        "metadata": {"name": "agx", "labels": {"role": "worker"}, "annotations": {OWNS: LABEL}},
        "spec": {},
    }


def test_what_is_in_the_way_and_who_is_not_there() -> None:
    nodes = [node({"role": "db"}), node(name="nuc", taints=("dedicated=other:NoSchedule",)), node(name="orin")]
    found = node_changes(nodes, {"agx": [LABEL], "nuc": [TAINT], "orin": [], "gone": [LABEL]})
    assert found["conflicts"] == [
        {"node": "agx", "wanted": LABEL, "has": "role=db"},
        {"node": "nuc", "wanted": TAINT, "has": "dedicated=other:NoSchedule"},
    ]
    assert found["unknown"] == ["gone"]


def test_a_node_that_is_not_wanted_any_more_is_cleared() -> None:
    patches = node_changes([node({"role": "worker"}, owns=LABEL)], {})["patches"]
    assert patched(node({"role": "worker"}, owns=LABEL), patches[0]["patch"]) == node()


def pod(**status: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"nodeName": "agx"}, "status": status}


def container(**state: Any) -> Object:
    return {"containerStatuses": [{"name": "c", **state}]}


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        (
            container(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such"}}),
            "ImagePullBackOff",
            "no such",
        ),
        (
            container(
                state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                lastState={"terminated": {"exitCode": 1, "message": "starting\nPOSTURE_STREAMS is not set\n"}},
            ),
            "CrashLoopBackOff",
            "POSTURE_STREAMS is not set",
        ),
        (container(state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "OOMKilled", ""),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]},
            "Unschedulable",
            "0/3",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, "Evicted", "disk"),
    ],
)
def test_a_pod_that_does_not_run_says_why(status: Object, reason: str, message: str) -> None:
    assert pod_problems([pod(**status)]) == [{"name": "p", "node": "agx", "reason": reason, "message": message}]


@pytest.mark.parametrize(
    "status",
    [
        {},
        container(state={"running": {}}),
        container(state={"waiting": {"reason": "ContainerCreating"}}),
        container(state={"terminated": {"exitCode": 0, "reason": "Completed"}}),
    ],
)
def test_a_pod_that_runs_or_will_has_no_problem(status: Object) -> None:
    assert pod_problems([pod(**status)]) == []


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("ErrImagePull", "posture_registry_username"),
        ("CrashLoopBackOff", "'kubectl -n posture logs p'"),
        ("CreateContainerConfigError", "'kubectl -n posture describe pod p'"),
        ("OOMKilled", "analyzer_job_resources"),
    ],
)
def test_a_problem_has_its_next_step(reason: str, step: str) -> None:
    said = pod_advice({"name": "p", "node": "agx", "reason": reason, "message": "m"}, "posture")
    assert said.startswith(f"pod p on node agx: {reason} (m): ")
    assert step in said


def refusal(message: str) -> str:
    """Return what a module of kubernetes.core says of the cluster's answer."""
    return f"Failed to apply object: {json.dumps({'kind': 'Status', 'message': message}).encode()!r}"


@pytest.mark.parametrize(
    ("said", "cause", "advice"),
    [
        (
            refusal('nodes is forbidden: User "x" cannot list'),
            'nodes is forbidden: User "x" cannot list',
            "administrator",
        ),
        (refusal("cannot create: the namespace is being terminated"), "cannot create", "still being removed"),
        (refusal("it's \\odd"), "it's \\odd. The whole answer", "-v"),
        ("Task failed: Module failed: 401\nReason: Unauthorized\nHTTP response headers: {}", "401 Reason", "anew"),
        ("Timed out after 60 second(s).", "Timed out", "cannot be reached"),
        ("HTTPSConnectionPool(host='x'): Max retries exceeded: Connection refused", "HTTPS", "cannot be reached"),
        ("Max retries exceeded: certificate verify failed: self-signed", "Max", "authority"),
        (
            "Could not create API client: Invalid kube-config file. Expected key current-context",
            "Could",
            "get-contexts",
        ),
        ("Failed to import the required Python library (kubernetes) on nuc", "Failed", "requirements/control.txt"),
        ("", "the cluster said nothing", ""),
    ],
)
def test_a_refusal_has_its_cause_and_next_step(said: str, cause: str, advice: str) -> None:
    problem = cluster_problem(said)
    assert problem.startswith(cause)
    assert advice in problem
