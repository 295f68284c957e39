# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that says what a Job made from a template looks like, in the language of Kubernetes' admission policies.

Whoever has the offloader's token can create Jobs. What comes from the template here is all that such a Job may be:
other images, commands, variables, privileges, volumes and accounts are refused. Stream, epoch and node are free.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Object = Mapping[str, Any]

PLACEHOLDER = "$(POSTURE_STREAM)"
FILLED_IN = ("POSTURE_STREAM", "POSTURE_EPOCH", "POSTURE_NODE")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
# Which part of a volume's source says what it shows.
_SOURCES = {"hostPath": "path", "secret": "secretName", "configMap": "name", "persistentVolumeClaim": "claimName"}


def job_admission(job: Object, streams: Iterable[str]) -> dict[str, Any]:
    """Return `variables` and `validations` of a ValidatingAdmissionPolicy for Jobs of these streams."""
    pod = job["spec"]["template"]["spec"]
    containers = [*pod["containers"], *(pod.get("initContainers") or [])]
    return {
        "variables": [
            {"name": "pod", "expression": "object.spec.template.spec"},
            {
                "name": "containers",
                "expression": "variables.pod.containers + variables.pod.?initContainers.orValue([])",
            },
            {
                "name": "stream",
                "expression": "object.metadata.?labels[?'posture.edge/stream'].orValue('')",
            },
        ],
        "validations": [
            {"expression": expression, "message": f"the offloader may not create such a Job: {what}"}
            for what, expression in (
                ("the stream or the name is not one of its own", _name(streams)),
                ("it names no node", "variables.pod.?nodeName.orValue('') != ''"),
                ("it has more than one pod", _at_most_one("parallelism") + " && " + _at_most_one("completions")),
                ("a container is not the template's", _each(containers, _program)),
                ("a container has other variables than the template's", _each(containers, _variables)),
                ("a container runs a command that is not the template's", _each(containers, _hooks)),
                ("a container has other rights than the template's", _each(containers, _rights)),
                ("the pod has other rights than the template's", _pod_rights(pod)),
                ("the pod has another service account than the template's", _account(pod)),
                ("a volume is not the template's", _volumes(pod)),
            )
        ],
    }


def _name(streams: Iterable[str]) -> str:
    name = "'posture-' + variables.stream + '-' + object.metadata.?labels[?'posture.edge/epoch'].orValue('')"
    return f"variables.stream in {_literal(list(streams))} && object.metadata.?name.orValue('') == {name}"


def _at_most_one(field: str) -> str:
    return f"object.spec.?{field}.orValue(1) <= 1"


def _each(containers: Iterable[Object], rule: Callable[[Object], list[str]]) -> str:
    """Return that each container follows the rule of the template's container of its name."""
    rules = (" && ".join([f"c.name == {_literal(each['name'])}", *rule(each)]) for each in containers)
    return f"variables.containers.all(c, {' || '.join(f'({one})' for one in rules)})"


def _program(container: Object) -> list[str]:
    return [
        f"c.image == {_literal(container['image'])}",
        f"c.?command.orValue([]) == {_literal(container.get('command') or [])}",
        f"c.?args.orValue([]) == {_literal(container.get('args') or [])}",
        f"c.?workingDir.orValue('') == {_literal(container.get('workingDir') or '')}",
        f"size(c.?envFrom.orValue([])) {'>=' if container.get('envFrom') else '=='} 0",
    ]


def _variables(container: Object) -> list[str]:
    given = [each for each in container.get("env") or [] if each["name"] not in FILLED_IN]
    rules = [f"(e.name in {_literal(list(FILLED_IN))} && !has(e.valueFrom))"]
    rules += [f"(e.name == {_literal(each['name'])} && {_value(each)})" for each in given]
    return [f"c.?env.orValue([]).all(e, {' || '.join(rules)})"]


def _value(variable: Object) -> str:
    source = variable.get("valueFrom")
    if not source:
        return f"!has(e.valueFrom) && e.?value.orValue('') == {_named(variable.get('value') or '')}"
    [kind] = source
    rules = [f"e.?valueFrom.?{kind}.hasValue()"]
    named = [part for part in ("name", "key") if part in source[kind]]
    rules += [f"e.valueFrom.{kind}.{part} == {_named(source[kind][part])}" for part in named]
    return " && ".join(rules)


def _hooks(container: Object) -> list[str]:
    rules = [f"!c.?{probe}.?exec.hasValue()" for probe in PROBES if not (container.get(probe) or {}).get("exec")]
    return rules + ([] if container.get("lifecycle") else ["!has(c.lifecycle)"])


def _rights(container: Object) -> list[str]:
    context = container.get("securityContext") or {}
    added = (context.get("capabilities") or {}).get("add") or []
    rules = (
        []
        if any(port.get("hostPort") for port in container.get("ports") or [])
        else ["c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0)"]
    )
    return [
        *rules,
        *_same("c.?securityContext", context, {"privileged": False, "allowPrivilegeEscalation": True}),
        *_same("c.?securityContext", context, {"readOnlyRootFilesystem": False, "runAsNonRoot": True}),
        *_same("c.?securityContext", context, {"runAsUser": -1, "runAsGroup": -1, "procMount": "Default"}),
        f"c.?securityContext.?capabilities.?add.orValue([]).all(a, a in {_literal(added)})",
        *([] if context.get("seccompProfile") else ["!c.?securityContext.?seccompProfile.hasValue()"]),
        *([] if context.get("appArmorProfile") else ["!c.?securityContext.?appArmorProfile.hasValue()"]),
    ]


def _pod_rights(pod: Object) -> str:
    context = pod.get("securityContext") or {}
    seccomp = context.get("seccompProfile") or {}
    rules = [
        *_same("variables.pod", pod, {"hostPID": False, "hostNetwork": False, "hostIPC": False}),
        *_same("variables.pod", pod, {"shareProcessNamespace": False, "priorityClassName": "", "runtimeClassName": ""}),
        *_same("variables.pod.?securityContext", context, {"runAsUser": -1, "runAsGroup": -1, "fsGroup": -1}),
        *_same("variables.pod.?securityContext", context, {"runAsNonRoot": False}),
        *_same("variables.pod.?securityContext.?seccompProfile", seccomp, {"type": ""}),
        # Where the broker's password goes.
        *(f"!has(variables.pod.{field})" for field in ("hostAliases", "dnsConfig") if field not in pod),
    ]
    groups = _literal(context.get("supplementalGroups") or [])
    rules.append(f"variables.pod.?securityContext.?supplementalGroups.orValue([]).all(g, g in {groups})")
    return " && ".join(rules)


def _account(pod: Object) -> str:
    name = pod.get("serviceAccountName") or "default"
    template = {"serviceAccountName": name, "serviceAccount": name}  # the second is the first one's former name
    template["automountServiceAccountToken"] = pod.get("automountServiceAccountToken", True)
    defaults = template | {"automountServiceAccountToken": True}
    return " && ".join(_same("variables.pod", template, defaults))


def _volumes(pod: Object) -> str:
    rules = []
    for volume in pod.get("volumes") or []:
        sources = [(kind, source) for kind, source in volume.items() if kind != "name"]
        kind, source = sources[0] if sources else ("emptyDir", {})
        rule = [f"v.name == {_literal(volume['name'])}", f"has(v.{kind})"]
        if part := _SOURCES.get(kind):
            rule.append(f"v.{kind}.{part} == {_named(source[part])}")
        rules.append(f"({' && '.join(rule)})")
    return f"variables.pod.?volumes.orValue([]).all(v, {' || '.join(rules) or 'false'})"


def _same(where: str, template: Object, defaults: Object) -> list[str]:
    """Return that the fields are as in the template, where a missing one counts as its default."""
    return [
        f"{where}.?{field}.orValue({_literal(default)}) == {_literal(template.get(field, default))}"
        for field, default in defaults.items()
    ]


def _named(text: str) -> str:
    """Return the text with the stream's name in its place."""
    return _literal(text) + (f".replace('{PLACEHOLDER}', variables.stream)" if PLACEHOLDER in text else "")


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters of this file by name."""
        return {"job_admission": job_admission}
