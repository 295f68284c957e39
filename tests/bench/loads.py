"""How long it takes to read the load of many nodes from a real Prometheus, alone and as an Ansible task."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import requests

from posture_edge.load import DEFAULT_METRICS, Node, read_loads
from posture_edge.load import Prometheus as Client
from tests.bench.lab import Lab
from tests.bench.timing import compare, seconds
from tests.support.exporters import Exporter
from tests.support.prometheus import Prometheus, Target
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
INTERVAL_S = 2
CORES = 4
TASKS = 10


def measure(lab: Lab, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure load.py for three metrics, in turn with the three requests alone: side by side too, and not parsed."""
    del lab  # it needs no broker and no database
    rows = []
    for count in (3, 100, 1000):
        with scraped(count) as url:
            client, nodes = Client(url), [Node(name) for name in names(count)]
            read = partial(read_loads, client, DEFAULT_METRICS, nodes, scrape_interval_s=INTERVAL_S)
            times = compare(("load.py", read), ("plain requests", partial(_ask, url)), 10 * options.rounds)
        rows.append({"nodes": count, **times})
    return rows


def measure_module(lab: Lab, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one more task in a play: each module, and Ansible's own ping beside them."""
    del lab
    with scraped(3) as url:
        arguments = {"prometheus_url": url, "nodes": [{"name": name} for name in names(3)]}
        choice = {"prometheus_url": url, "candidates": names(3), "when_none": "empty"}
        tasks: dict[str, dict[str, Any]] = {
            "ansible.builtin.ping": {"ansible.builtin.ping": {}},
            "node_load_info": {"posture.edge.node_load_info": arguments},
            "node_select": {"posture.edge.node_select": choice},
        }
        taken: dict[str, list[float]] = {name: [] for name in tasks}
        for _ in range(options.rounds):
            empty = seconds(partial(_play, []))
            for name, task in tasks.items():
                taken[name].append((seconds(partial(_play, [task] * TASKS)) - empty) / TASKS)
    return [{"task": name, "seconds": statistics.median(each)} for name, each in taken.items()]


def names(count: int) -> list[str]:
    """Return the nodes' names."""
    return [f"node{number:04}" for number in range(count)]


@contextmanager
def scraped(count: int) -> Iterator[str]:
    """Yield the URL of a Prometheus that knows the load of that many nodes; one exporter speaks for all of them."""

    def text() -> str:
        idle_s = 0.7 * time.time()
        lines = []
        for node in names(count):
            lines += [
                f'node_cpu_seconds_total{{node="{node}",cpu="{core}",mode="{mode}"}} {share * idle_s}'
                for core in range(CORES)
                for mode, share in (("idle", 1), ("user", 0.4))
            ]
            lines.append(f'node_memory_MemAvailable_bytes{{node="{node}"}} 3e9')
            lines.append(f'node_memory_MemTotal_bytes{{node="{node}"}} 4e9')
            lines.append(f'jetson_gpu_usage_percent{{node="{node}"}} 45')
        return "\n".join([*lines, ""])

    with (
        tempfile.TemporaryDirectory(prefix="posture-bench-") as directory,
        Exporter(text) as exporter,
        Prometheus(
            Path(directory), [Target(exporter.address, honor_labels=True)], scrape_interval_s=INTERVAL_S
        ) as prometheus,
    ):
        client, nodes = Client(prometheus.url), [Node(name) for name in names(count)]

        def all_known() -> bool:
            report = read_loads(client, DEFAULT_METRICS, nodes, scrape_interval_s=INTERVAL_S)
            return not any(load.unknown for load in report.nodes.values())

        wait_until(all_known, timeout=30, describe=f"the load of {count} nodes", pause=0.2)
        yield prometheus.url


def _ask(url: str) -> None:
    def get(query: str) -> bytes:
        return requests.get(f"{url}/api/v1/query", params={"query": query}, timeout=30).content

    with ThreadPoolExecutor(max_workers=len(DEFAULT_METRICS)) as pool:
        for answer in pool.map(get, [metric.query.replace("$window", "8s") for metric in DEFAULT_METRICS]):
            assert b'"success"' in answer[:100], answer[:500]


def _play(tasks: list[dict[str, Any]]) -> None:
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    play["vars"] = {"ansible_python_interpreter": sys.executable}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump([play], file)
        file.flush()
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", file.name]
        environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"the play failed: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")
