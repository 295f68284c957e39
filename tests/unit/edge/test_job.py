"""The Job of an epoch, from templates as labs write them."""

import copy
from typing import Any

import pytest
from posture_common.epochs import EPOCH_MAX

from posture_edge.job import TemplateError, job_name, render

TEMPLATE: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"labels": {"lab": "ours"}, "annotations": {"note": "kept"}},
    "spec": {
        "ttlSecondsAfterFinished": 60,
        "template": {
            "metadata": {"labels": {"lab": "ours"}},
            "spec": {
                "containers": [
                    {"name": "sidecar", "image": "s"},
                    {"name": "analyzer", "image": "i@sha256:1", "env": [{"name": "POSTURE_PASSES", "value": "1"}]},
                ]
            },
        },
    },
}


def test_the_name_of_the_last_epoch_fits() -> None:
    assert len(job_name(40 * "p", EPOCH_MAX)) <= 63


def rendered(template: Any = TEMPLATE, **more: Any) -> dict[str, Any]:
    return render(template, **{"stream": "pi1", "epoch": 7, "node": "agx", **more})


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    template = copy.deepcopy(TEMPLATE)
    place: Any = template
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return template


def test_node_name_labels_and_variables_are_filled_in_and_the_rest_stays() -> None:
    job = rendered()
    labels = {
        "lab": "ours",
        "app.kubernetes.io/part-of": "posture-edge",
        "app.kubernetes.io/name": "posture-analyzer",
        "posture.edge/stream": "pi1",
        "posture.edge/epoch": "7",
    }
    assert job["metadata"] == {"name": "posture-pi1-7", "labels": labels, "annotations": {"note": "kept"}}
    assert job["spec"]["template"]["metadata"]["labels"] == labels
    assert (job["spec"]["backoffLimit"], job["spec"]["ttlSecondsAfterFinished"]) == (0, 60)
    pod = job["spec"]["template"]["spec"]
    assert (pod["nodeName"], pod["restartPolicy"]) == ("agx", "Never")
    assert pod["containers"][0] == {"name": "sidecar", "image": "s"}
    assert pod["containers"][1]["env"] == [
        {"name": "POSTURE_PASSES", "value": "1"},
        {"name": "POSTURE_STREAM", "value": "pi1"},
        {"name": "POSTURE_EPOCH", "value": "7"},
        {"name": "POSTURE_NODE", "value": "agx"},
    ]


def test_the_template_is_not_changed() -> None:
    before = copy.deepcopy(TEMPLATE)
    rendered()
    assert before == TEMPLATE


@pytest.mark.parametrize(
    ("path", "value", "there"),
    [
        (("metadata", "name"), "mine", "posture-pi1-7"),
        (("metadata", "namespace"), "other", None),
        (("metadata", "generateName"), "mine-", None),
        (("spec", "parallelism"), 3, None),
        (("spec", "completions"), 3, None),
        (("spec", "backoffLimit"), 6, 0),
        (("spec", "template", "spec", "nodeName"), "nuc", "agx"),
        (("spec", "template", "spec", "nodeSelector"), {"role": "worker"}, None),
        (("spec", "template", "spec", "affinity"), {"nodeAffinity": {}}, None),
        (("spec", "template", "spec", "restartPolicy"), "OnFailure", "Never"),
    ],
)
def test_what_would_contradict_gives_way(path: tuple[str, ...], value: Any, there: Any) -> None:
    found: Any = rendered(changed(*path, to=value))
    for key in path[:-1]:
        found = found[key]
    assert found.get(path[-1]) == there


@pytest.mark.parametrize("key", ["POSTURE_STREAM", "POSTURE_EPOCH", "POSTURE_NODE"])
def test_a_variable_of_the_same_name_is_replaced(key: str) -> None:
    own = [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
    env = rendered(changed("spec", "template", "spec", "containers", 1, "env", to=own))
    variables = env["spec"]["template"]["spec"]["containers"][1]["env"]
    assert [each["name"] for each in variables].count(key) == 1
    assert all("valueFrom" not in each for each in variables)


def test_labels_metadata_and_variables_may_be_missing_or_empty() -> None:
    job = rendered({"kind": "Job", "spec": {"template": {"spec": {"containers": [{"name": "x", "env": None}]}}}})
    assert job["apiVersion"] == "batch/v1"
    assert job["spec"]["template"]["metadata"]["labels"]["posture.edge/epoch"] == "7"
    assert [each["value"] for each in job["spec"]["template"]["spec"]["containers"][0]["env"]] == ["pi1", "7", "agx"]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (None, "holds no Job"),
        ("text", "holds no Job"),
        ([TEMPLATE], "holds no Job"),
        ({**TEMPLATE, "kind": "Pod"}, "holds no Job"),
        ({"kind": "Job"}, r"has no spec\.template\.spec"),
        ({"kind": "Job", "spec": {"template": None}}, r"has no spec\.template\.spec"),
        (changed("spec", "template", "spec", "containers", to=[]), "needs one container called analyzer, and has none"),
        (
            changed("spec", "template", "spec", "containers", to=[{"name": "a"}, {"name": "b"}]),
            "needs one container called analyzer, and has a, b",
        ),
        (changed("metadata", to="mine"), "metadata is no mapping"),
        (changed("metadata", "labels", to=["lab"]), "labels is no mapping"),
    ],
)
def test_a_template_that_cannot_be_used_is_named(template: Any, problem: str) -> None:
    with pytest.raises(TemplateError, match=rf"ConfigMap posture-job, key posture-job\.yaml.* {problem}"):
        rendered(template)


def test_the_longest_name_is_one_that_kubernetes_takes() -> None:
    assert len(job_name("a" * 40, 10**12)) <= 63


def test_the_streams_name_stands_where_the_pod_asks_for_it() -> None:
    pod = {
        "containers": [{"name": "analyzer", "env": [{"name": "POSTURE_MQTT_USER", "value": "a-$(POSTURE_STREAM)"}]}],
        "volumes": [{"name": "secrets", "secret": {"secretName": "a-$(POSTURE_STREAM)", "defaultMode": 288}}],
    }
    filled = rendered(changed("spec", "template", "spec", to=pod))["spec"]["template"]["spec"]
    assert filled["volumes"] == [{"name": "secrets", "secret": {"secretName": "a-pi1", "defaultMode": 288}}]
    assert {"name": "POSTURE_MQTT_USER", "value": "a-pi1"} in filled["containers"][0]["env"]
    assert "$(POSTURE_STREAM)" in str(pod), "the template stays as it is"
