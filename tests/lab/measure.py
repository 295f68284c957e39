"""`python -m tests.lab.measure`: how soon a Job's container runs, and what memory a lab that is up takes."""

import statistics
import sys
import time
from pathlib import Path

from tests.lab import cgroups
from tests.lab.api import Api, wait_for
from tests.lab.lab import Lab
from tests.lab.pods import pod
from tests.lab.settings import NODES, from_environment

_ROUNDS = 20


def job_seconds(api: Api, node: str, name: str) -> float:
    """Return the seconds from creating a Job until its container runs, by the clock that both sides see."""
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    pods = "/api/v1/namespaces/default/pods"
    begin = time.clock_gettime(time.CLOCK_BOOTTIME)
    template = {"metadata": {"labels": {"measured": name}}, "spec": pod("cat /proc/uptime", node=node)}
    api.create(jobs, {"metadata": {"name": name}, "spec": {"ttlSecondsAfterFinished": 5, "template": template}})
    wait_for(lambda: api.get(f"{jobs}/{name}")["status"].get("succeeded") == 1, timeout=30, what=f"Job {name} ends")
    (made,) = api.get(pods, labelSelector=f"measured={name}")["items"]
    return float(api.text(f"{pods}/{made['metadata']['name']}/log").split()[0]) - begin


def memory_bytes(name: str) -> int:
    """Return the memory of all processes of a lab, shared pages counted once (the sum of PSS)."""
    total = 0
    for process in cgroups.processes(name):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def main() -> int:
    """Print the figures."""
    lab = Lab(from_environment())
    with Api(lab.kubeconfig) as api:
        run = int(time.time())
        times = [job_seconds(api, NODES[index % len(NODES)], f"measure-{run}-{index}") for index in range(_ROUNDS)]
    median, longest = statistics.median(times), max(times)
    print(f"Job created -> container runs   median {median * 1000:.0f} ms, at most {longest * 1000:.0f} ms")
    print(f"memory of all machines          {memory_bytes(lab.settings.name) / 2**30:.2f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
