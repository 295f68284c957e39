"""A real cluster: Jobs run where they are told, pods find Services by name. Also on another than the lab's."""

from tests.lab.api import Api, wait_for
from tests.lab.pods import pod, run_pod


def test_a_job_runs_on_the_node_that_it_names_and_its_ttl_removes_it(
    api: Api, nodes: list[str], image: str, namespace: str
) -> None:
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    pods = f"/api/v1/namespaces/{namespace}/pods"
    for node in nodes:
        template = {"spec": pod("sleep 2", node=node, image=image)}
        spec = {"ttlSecondsAfterFinished": 1, "backoffLimit": 0, "template": template}
        api.create(jobs, {"metadata": {"name": f"on-{node}"}, "spec": spec})
    wait_for(
        lambda: [job["status"].get("active") for job in api.get(jobs)["items"]] == [1] * len(nodes),
        timeout=30,
        what="all Jobs are active",
    )
    assert {each["spec"]["nodeName"] for each in api.get(pods)["items"]} == set(nodes)
    addresses = {api.get(f"/api/v1/nodes/{node}")["status"]["addresses"][0]["address"] for node in nodes}
    wait_for(
        lambda: {each["status"].get("hostIP") for each in api.get(pods)["items"]} == addresses,
        timeout=30,
        what=f"their pods run on {addresses}",
    )
    wait_for(lambda: not api.get(jobs)["items"], timeout=30, what="their TTL removes the Jobs")
    wait_for(lambda: not api.get(pods)["items"], timeout=30, what="the pods go with them")


def test_pods_reach_a_service_by_name_on_the_same_node_and_on_others(
    api: Api, nodes: list[str], image: str, namespace: str
) -> None:
    page = pod("echo hello >/tmp/index.html; httpd -f -p 8080 -h /tmp", node=nodes[0], image=image)
    metadata = {"name": "server", "labels": {"app": "server"}}
    api.create(f"/api/v1/namespaces/{namespace}/pods", {"metadata": metadata, "spec": page})
    service = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
    api.create(f"/api/v1/namespaces/{namespace}/services", {"metadata": {"name": "web"}, "spec": service})
    script = f"for try in {' '.join('x' * 50)}; do wget -qO- http://web/ 2>/dev/null && exit; sleep 0.3; done; exit 1"
    for node in nodes:
        client = pod(script, node=node, image=image)
        assert run_pod(api, namespace, f"client-{node}", client) == "hello\n"


def test_a_pod_reaches_the_api_server_by_name(api: Api, nodes: list[str], image: str, namespace: str) -> None:
    script = "nslookup kubernetes.default.svc.cluster.local && nc -w 5 kubernetes.default 443 </dev/null && echo open"
    assert "open" in run_pod(api, namespace, "client", pod(script, node=nodes[-1], image=image))
