"""What an admission policy asks of a Job, from templates as labs write them; the lab asks a real cluster."""

from typing import Any

import pytest

from plugins.filter.job_admission import job_admission


def expressions(pod: dict[str, Any], container: dict[str, Any] | None = None) -> str:
    named = {"name": "analyzer", "image": "i@sha256:1"} | (container or {})
    job = {"spec": {"template": {"spec": {"containers": [named]} | pod}}}
    return "\n".join(each["expression"] for each in job_admission(job, ["pi1"])["validations"])


def test_a_lab_may_need_more_than_our_template() -> None:
    for word in ("hostPID", "hostNetwork"):
        assert f"variables.pod.?{word}.orValue(false) == true" in expressions({word: True})
    context = {"privileged": True, "capabilities": {"add": ["SYS_PTRACE"]}}
    found = expressions({}, {"securityContext": context, "lifecycle": {"preStop": {}}, "command": ["sh"]})
    assert "c.?securityContext.?privileged.orValue(false) == true" in found
    assert 'a in ["SYS_PTRACE"]' in found
    assert "has(c.lifecycle)" not in found
    assert 'c.?command.orValue([]) == ["sh"]' in found


def test_what_is_not_there_is_not_allowed() -> None:
    found = expressions({})
    assert "variables.pod.?volumes.orValue([]).all(v, false)" in found
    assert "variables.pod.?hostPID.orValue(false) == false" in found
    assert "c.?securityContext.?privileged.orValue(false) == false" in found
    assert "has(variables.pod.hostAliases)" in found


@pytest.mark.parametrize(
    ("volume", "expression"),
    [
        ({"name": "a"}, "has(v.emptyDir)"),
        ({"name": "a", "hostPath": {"path": "/srv"}}, 'v.hostPath.path == "/srv"'),
        ({"name": "a", "persistentVolumeClaim": {"claimName": "c"}}, 'v.persistentVolumeClaim.claimName == "c"'),
        ({"name": "a", "configMap": {"name": "c"}}, 'v.configMap.name == "c"'),
        (
            {"name": "a", "secret": {"secretName": "s-$(POSTURE_STREAM)"}},
            "v.secret.secretName == \"s-$(POSTURE_STREAM)\".replace('$(POSTURE_STREAM)', variables.stream)",
        ),
    ],
)
def test_a_volume_shows_what_the_templates_shows(volume: dict[str, Any], expression: str) -> None:
    assert 'v.name == "a" && has(v.' in expressions({"volumes": [volume]})
    assert expression in expressions({"volumes": [volume]})


def test_a_variable_comes_from_where_the_templates_comes() -> None:
    given = [
        {"name": "A", "value": 'x"y'},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k"}}},
        {"name": "POSTURE_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]
    found = expressions({}, {"env": given})
    assert '(e.name == "A" && !has(e.valueFrom) && e.?value.orValue(\'\') == "x\\"y")' in found
    assert 'e.valueFrom.secretKeyRef.name == "mine" && e.valueFrom.secretKeyRef.key == "k"' in found
    assert "fieldRef" not in found, "the offloader fills it in"
