"""Pods of one container on a node that is named, for tests."""

from tests.lab import images
from tests.lab.api import Api, Object, wait_for


def pod(command: str, *, node: str, image: str = images.BUSYBOX) -> Object:
    """Return the spec of a pod that runs a line of shell once."""
    container = {"name": "c", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", command]}
    return {
        "nodeName": node,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "containers": [container],
    }


def run_pod(api: Api, namespace: str, name: str, spec: Object) -> str:
    """Run a pod to its end and return what it printed."""
    pods = f"/api/v1/namespaces/{namespace}/pods"
    api.create(pods, {"metadata": {"name": name}, "spec": spec})

    def phase() -> str:
        return str(api.get(f"{pods}/{name}")["status"].get("phase"))

    wait_for(lambda: phase() in {"Succeeded", "Failed"}, timeout=60, what=f"pod {name} ends")
    output = api.text(f"{pods}/{name}/log")
    if phase() == "Failed":
        raise AssertionError(f"pod {name} failed: {output}")
    return output
