"""What a stolen token of the offloader is good for where role offloader has set up the cluster: its own Jobs."""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from posture_edge.job import render
from tests.lab.api import Api, Object, wait_for
from tests.lab.tools import LabError
from tests.support.plays import role, run_play

INSTANCE = "posture-admission"
USER = f"system:serviceaccount:{INSTANCE}:posture-offloader"
JOBS = f"/apis/batch/v1/namespaces/{INSTANCE}/jobs"
CONFIG_MAPS = f"/api/v1/namespaces/{INSTANCE}/configmaps"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{INSTANCE}/leases"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
GROUPS = ("broker", "database", "home", "metrics", "offloader", "pis")
pytestmark = pytest.mark.timeout(300)


@dataclass
class Guarded:
    """A cluster after role offloader, without the offloader itself: its administrator, and who has its token."""

    admin: Api
    thief: Api
    template: Object

    def job(self, epoch: int = 1) -> Object:
        """Return a Job as the offloader creates it."""
        return render(self.template, stream="pi1", epoch=epoch, node="agx")

    def refusal(self, path: str, content: Object) -> str:
        """Return why the thief may not create an object; empty where it may: it is gone again then."""
        try:
            name = self.thief.create(path, content)["metadata"]["name"]
        except LabError as error:
            return str(error)
        self.admin.delete(f"{path}/{name}")
        wait_for(lambda: not self.admin.exists(f"{path}/{name}"), timeout=20, what=f"{name} is gone")
        return ""


def _play(directory: Path, kubeconfig: Path, *files: str, **variables: Any) -> None:
    settings = {
        "posture_instance": INSTANCE,
        "posture_kubeconfig": str(kubeconfig),
        "posture_secrets_dir": str(directory / "secrets"),
        "posture_address": "10.9.8.7",
        "posture_tls": False,  # role broker, which is not run here, makes the certificates
        "__common_images": {"analyzer": f"registry.example:5000/posture@sha256:{64 * 'a'}", "offloader": "x"},
    }
    wanted = {
        "block": [role("offloader", settings | variables, tasks_from=each) for each in files],
        "module_defaults": {"group/kubernetes.core.k8s": {"kubeconfig": str(kubeconfig)}},
    }
    ran = run_play(directory, [wanted], groups=GROUPS, arguments=["-e", "pi_id=pi1", "-e", "posture_address=10.9.8.7"])
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def guarded(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The cluster after the role's settings, and after `down` as it was."""
    directory = tmp_path_factory.mktemp("admission")
    with Api(kubeconfig) as admin, Api(kubeconfig, impersonate=USER) as thief:
        try:
            _play(directory, kubeconfig, "look", "namespace", "configure")
            text = admin.get(f"{CONFIG_MAPS}/posture-job")["data"]["posture-job.yaml"]
            found = Guarded(admin, thief, yaml.safe_load(text))
            hostile = found.job()
            HOSTILE["the host's processes"](hostile)
            wait_for(
                lambda: "offloader may not" in found.refusal(JOBS, hostile), timeout=30, what="the policies are at work"
            )
            yield found
        finally:
            _play(directory, kubeconfig, "main", posture_state="absent")
    with Api(kubeconfig) as admin:
        left = [each["metadata"]["name"] for each in admin.get(POLICIES)["items"]]
        assert not [name for name in left if name.startswith(INSTANCE)]
        wait_for(lambda: not admin.exists(f"/api/v1/namespaces/{INSTANCE}"), timeout=60, what="the namespace is gone")


def test_the_offloaders_own_jobs_are_taken(guarded: Guarded) -> None:
    assert guarded.refusal(JOBS, guarded.job()) == ""
    assert guarded.refusal(JOBS, guarded.job(epoch=999_999_999)) == ""


def pod(job: Object) -> Object:
    found: Object = job["spec"]["template"]["spec"]
    return found


def container(job: Object) -> Object:
    found: Object = pod(job)["containers"][0]
    return found


def volume(job: Object, name: str) -> Object:
    found: Object
    [found] = [each for each in pod(job)["volumes"] if each["name"] == name]
    return found


def variable(name: str, **value: Any) -> Callable[[Object], None]:
    def change(job: Object) -> None:
        container(job)["env"] = [each for each in container(job)["env"] if each["name"] != name] + [
            {"name": name, **value}
        ]

    return change


SECRET = {"secretKeyRef": {"name": "posture-offloader", "key": "mqtt-password"}}
HOSTILE: dict[str, Callable[[Object], Any]] = {
    "privileged": lambda job: container(job)["securityContext"].update(privileged=True, allowPrivilegeEscalation=True),
    "more privileges than its parent": lambda job: container(job)["securityContext"].update(
        allowPrivilegeEscalation=True
    ),
    "a capability": lambda job: container(job)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    "a capability that is not dropped but added": lambda job: container(job)["securityContext"].update(
        capabilities={"add": ["NET_RAW"]}
    ),
    "root": lambda job: container(job)["securityContext"].update(runAsUser=0, runAsNonRoot=False),
    "root as the pod's user": lambda job: pod(job)["securityContext"].update(runAsUser=0, runAsNonRoot=False),
    "another group": lambda job: pod(job)["securityContext"].update(supplementalGroups=[0]),
    "no seccomp": lambda job: container(job)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    "the host's processes": lambda job: pod(job).update(hostPID=True),
    "the host's network": lambda job: pod(job).update(hostNetwork=True),
    "the host's IPC": lambda job: pod(job).update(hostIPC=True),
    "a port of the host": lambda job: container(job)["ports"].append({"containerPort": 1, "hostPort": 1}),
    "the host's root": lambda job: volume(job, "pictures")["hostPath"].update(path="/"),
    "the folder above": lambda job: volume(job, "pictures")["hostPath"].update(path="/var/lib/posture-admission"),
    "one more folder": lambda job: pod(job)["volumes"].append({"name": "etc", "hostPath": {"path": "/etc"}}),
    "another stream's secret": lambda job: volume(job, "secrets")["secret"].update(secretName="posture-analyzer-pi2"),
    "the offloader's secret": lambda job: volume(job, "secrets")["secret"].update(secretName="posture-offloader"),
    "a secret in a projection": lambda job: pod(job)["volumes"].append(
        {"name": "all", "projected": {"sources": [{"secret": {"name": "posture-offloader"}}]}}
    ),
    "a token in a projection": lambda job: pod(job)["volumes"].append(
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    ),
    "another service account": lambda job: pod(job).update(serviceAccountName="posture-offloader"),
    "another service account by its old name": lambda job: pod(job).update(serviceAccount="posture-offloader"),
    "a token": lambda job: pod(job).update(automountServiceAccountToken=True),
    "another image": lambda job: container(job).update(image="docker.io/library/busybox"),
    "another command": lambda job: container(job).update(command=["sh", "-c", "cat /run/posture/secrets/*"]),
    "arguments": lambda job: container(job).update(args=["check"]),
    "a second container": lambda job: pod(job)["containers"].append(
        {"name": "x", "image": "docker.io/library/busybox"}
    ),
    "a second container of our image": lambda job: pod(job)["containers"].append(
        {"name": "x", "image": container(job)["image"], "command": ["sh"]}
    ),
    "a container before": lambda job: pod(job).update(
        initContainers=[{"name": "x", "image": "docker.io/library/busybox"}]
    ),
    "a command as a probe": lambda job: container(job).update(livenessProbe={"exec": {"command": ["sh"]}}),
    "a command at its start": lambda job: container(job).update(lifecycle={"postStart": {"exec": {"command": ["sh"]}}}),
    "another broker, which gets the password": variable("POSTURE_MQTT_HOST", value="10.6.6.6"),
    "a library of its own": variable("LD_PRELOAD", value="/app/analyzed_images/x.so"),
    "another stream's account": variable("POSTURE_MQTT_USER", value="posture-analyzer-pi2"),
    "a secret as a variable": variable("POSTURE_NODE", valueFrom=SECRET),
    "a secret in a variable of the template": variable("POSTURE_MQTT_HOST", valueFrom=SECRET),
    "a secret as all variables": lambda job: container(job).update(
        envFrom=[{"secretRef": {"name": "posture-offloader"}}]
    ),
    "names of its own": lambda job: pod(job).update(hostAliases=[{"ip": "10.6.6.6", "hostnames": ["broker"]}]),
    "no node": lambda job: pod(job).pop("nodeName"),
    "priority": lambda job: pod(job).update(priorityClassName="system-node-critical"),
    "a hundred pods": lambda job: job["spec"].update(parallelism=100, completions=100),
    "another name": lambda job: job["metadata"].update(name="mine"),
    "no name": lambda job: job["metadata"].update(name=None, generateName="posture-pi1-"),
    "a stream that is none": lambda job: job["metadata"]["labels"].update({"posture.edge/stream": "pi9"}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_job_is_refused(guarded: Guarded, what: str) -> None:
    job = copy.deepcopy(guarded.job())
    HOSTILE[what](job)
    said = guarded.refusal(JOBS, job)
    assert re.search(r"422.*the offloader may not create such a Job", said), said or "it was created"


def test_the_administrator_may_create_what_it_likes(guarded: Guarded) -> None:
    job = guarded.job()
    HOSTILE["the host's root"](job)
    guarded.admin.create(JOBS, job)
    guarded.admin.delete(f"{JOBS}/{job['metadata']['name']}")


def test_the_offloader_has_its_own_objects_only(guarded: Guarded) -> None:
    assert guarded.refusal(CONFIG_MAPS, {"metadata": {"name": "posture-placements"}}) == ""
    assert "422" in guarded.refusal(CONFIG_MAPS, {"metadata": {"name": "mine"}})
    assert "422" in guarded.refusal(CONFIG_MAPS, {"metadata": {"generateName": "posture-placements"}})
    assert guarded.refusal(LEASES, {"metadata": {"name": "posture-offloader"}}) == ""
    assert "422" in guarded.refusal(LEASES, {"metadata": {"name": "mine"}})


@pytest.mark.parametrize(
    "path",
    [
        f"/api/v1/namespaces/{INSTANCE}/secrets",
        f"/api/v1/namespaces/{INSTANCE}/secrets/posture-analyzer-pi1",
        f"{CONFIG_MAPS}/kube-root-ca.crt",
        "/api/v1/namespaces/kube-system/secrets",
        f"/apis/networking.k8s.io/v1/namespaces/{INSTANCE}/networkpolicies",
        POLICIES,
    ],
)
def test_the_offloader_reads_no_secrets_and_no_rules(guarded: Guarded, path: str) -> None:
    with pytest.raises(LabError, match="403"):
        guarded.thief.get(path)


def test_the_pods_reach_what_they_need_only(guarded: Guarded) -> None:
    """The lab's network does not know the rules, so this is what they say."""
    listed = guarded.admin.get(f"/apis/networking.k8s.io/v1/namespaces/{INSTANCE}/networkpolicies")["items"]
    rules = {each["metadata"]["name"]: each["spec"] for each in listed}
    assert rules.keys() == {"posture-analyzer", "posture-offloader"}
    for name, spec in rules.items():
        assert spec["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": name}}
        assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
        [ingress] = spec["ingress"]
        assert ingress["from"] == [{"ipBlock": {"cidr": "10.9.8.7/32"}}]

    def reached(name: str) -> set[tuple[str, int]]:
        return {
            (to["ipBlock"]["cidr"], port["port"])
            for rule in rules[name]["egress"]
            for to in rule.get("to", [{"ipBlock": {"cidr": "any"}}])
            for port in rule["ports"]
        }

    everybody = {("any", 53), ("10.9.8.7/32", 1883)}
    service = guarded.admin.get("/api/v1/namespaces/default/services/kubernetes")["spec"]
    api = (f"{service['clusterIP']}/32", service["ports"][0]["port"])
    assert reached("posture-analyzer") == everybody | {("10.9.8.7/32", 5433)}
    assert reached("posture-offloader") >= everybody | {("10.9.8.7/32", 9090), api}
    assert ("10.9.8.7/32", 5433) not in reached("posture-offloader")
