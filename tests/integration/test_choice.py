"""Choosing a node by what a real Prometheus says: the module in a play, explain, record and replay."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.exporters import Exporter
from tests.support.modules import run_module
from tests.support.prometheus import Prometheus, Target
from tests.support.waiting import free_port, wait_until

NODES = ("nuc", "agx", "orin")


def metric(**loads: float) -> str:
    return "".join(f'my_cpu{{node="{node}"}} {load}\n' for node, load in loads.items())


METRICS = [{"name": "cpu", "query": "my_cpu", "required_by": "all"}]


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with Exporter(metric(nuc=30, agx=10, orin=20)) as exporter:
        yield exporter


@pytest.fixture
def prometheus(exporter: Exporter, tmp_path: Path) -> Iterator[Prometheus]:
    with Prometheus(tmp_path / "prometheus", [Target(exporter.address, honor_labels=True)]) as prometheus:
        prometheus.wait_for("my_cpu", lambda series: len(series) == 3)
        yield prometheus


def set_loads(exporter: Exporter, prometheus: Prometheus, **loads: float) -> None:
    exporter.text = metric(**loads)
    prometheus.wait_for("my_cpu", lambda series: {labels["node"]: load for labels, load in series} == loads)


def select(tmp_path: Path, prometheus_url: str, **arguments: Any) -> Any:
    given = {"prometheus_url": prometheus_url, "metrics": METRICS, "stream_load": {"cpu": 15}, **arguments}
    return run_module(tmp_path, "node_select", given)


def test_module_chooses_home_then_the_least_loaded_and_says_why(
    exporter: Exporter, prometheus: Prometheus, tmp_path: Path
) -> None:
    at_home = select(tmp_path, prometheus.url, candidates=list(NODES), home="nuc")
    assert (at_home["changed"], at_home["node"], at_home["rejected"]) == (False, "nuc", {})
    assert at_home["load"]["cpu"]["percent"] == 30

    set_loads(exporter, prometheus, nuc=60, agx=50, orin=20)
    away = select(tmp_path, prometheus.url, candidates=list(NODES), home="nuc")
    assert away["node"] == "orin"
    assert away["ranking"][0]["node"] == "orin"
    assert away["rejected"] == {
        "nuc": "busy: cpu 60 % of 60 %",
        "agx": "no room: one more stream would make cpu 65 %",
    }


def test_module_fails_or_returns_nothing_where_there_is_no_room(
    exporter: Exporter, prometheus: Prometheus, tmp_path: Path
) -> None:
    set_loads(exporter, prometheus, nuc=90, agx=90)
    failed = select(tmp_path, prometheus.url, candidates=[*NODES, {"name": "nano", "address": "10.77.0.9"}])
    assert failed["failed"]
    assert "No node has room for one more stream" in failed["msg"]
    assert "orin unknown" in failed["msg"]
    assert "my_cpu" in failed["rejected"]["nano"]
    empty = select(tmp_path, prometheus.url, candidates=["nuc"], when_none="empty")
    assert not empty["failed"]
    assert empty["node"] == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"candidates": []}, "candidates is empty"),
        ({"candidates": [{"address": "10.0.0.1"}]}, "has no name"),
        ({"candidates": [1]}, "1 is neither a name nor a dictionary"),
        ({"candidates": [{"name": "a", "adress": "10.0.0.1"}]}, "a has adress"),
        ({"candidates": ["a"], "streams": {"a": None}}, "streams: a must be a number"),
        ({"candidates": ["a"], "stream_load": {"cpu": "nan"}}, "stream_load: cpu must be a number"),
        ({"candidates": ["a", "b"], "prometheus_url": "http://127.0.0.1:9"}, "127.0.0.1:9"),
        ({"candidates": ["a"], "prometheus_url": "http://u:p@[x"}, "the URL of Prometheus must be like"),
        ({"label_selector": "role=worker", "kubeconfig": "/nonexistent/config"}, "cannot be asked for its nodes"),
    ],
)
def test_module_says_what_is_wrong(arguments: dict[str, Any], said: str, tmp_path: Path) -> None:
    result = select(tmp_path, **{"prometheus_url": "http://127.0.0.1:9", **arguments})
    assert result["failed"]
    assert said in result["msg"]


INVENTORY = """
all:
  vars:
    posture_prometheus_url: {url}
    posture_scrape_interval: 0.5
    posture_metrics: [{{name: cpu, query: my_cpu}}]
    posture_stream_load: {{cpu: 15, memory: 0}}
  children:
    home: {{hosts: {{nuc: {{}}}}}}
    workers: {{hosts: {{agx: {{ansible_host: 10.77.0.31}}, orin: {{}}}}}}
    pis: {{hosts: {{pi1: {{}}, somewhere: {{pi_id: kitchen}}}}}}
"""


@pytest.fixture
def inventory(prometheus: Prometheus, tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text(INVENTORY.format(url=prometheus.url))
    return path


def offloader(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = Path(sys.executable).with_name("posture-offloader")
    return subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_explain_reads_the_inventory_and_says_what_would_be_decided(
    exporter: Exporter, prometheus: Prometheus, inventory: Path
) -> None:
    set_loads(exporter, prometheus, nuc=75, agx=10, orin=20)
    new = json.loads(offloader("explain", "-i", inventory, "--json").stdout)
    assert [(each["stream"], each["node"]) for each in new["streams"]] == [("kitchen", "agx"), ("pi1", "orin")]
    assert [(each["node"], each["verdict"]) for each in new["nodes"]] == [
        ("agx", "target"),
        ("orin", "target"),
        ("nuc", "overloaded"),
    ]
    text = offloader("explain", "-i", inventory, "--on", "pi1=nuc").stdout
    assert "pi1 moves from nuc to orin: nuc is overloaded" in text
    assert "kitchen goes to agx" in text


def test_explain_names_node_metric_and_query_of_an_unknown_load(
    exporter: Exporter, prometheus: Prometheus, inventory: Path
) -> None:
    exporter.text = metric(nuc=20, agx=250)
    prometheus.wait_for('my_cpu{node="agx"} == 250')
    nodes = {each["node"]: each for each in json.loads(offloader("explain", "-i", inventory, "--json").stdout)["nodes"]}
    assert nodes["agx"]["verdict"] == nodes["orin"]["verdict"] == "unknown"
    assert "250" in nodes["agx"]["reason"]
    assert all(word in nodes["orin"]["reason"] for word in ("cpu", "orin", "my_cpu"))


def test_what_is_recorded_can_be_replayed(
    exporter: Exporter, prometheus: Prometheus, inventory: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    command = [str(Path(sys.executable).with_name("posture-offloader")), "record", str(trace), "-i", str(inventory)]
    with subprocess.Popen([*command, "--interval", "0.2"], stderr=subprocess.PIPE, text=True) as recorder:

        def lines() -> list[Any]:
            return [json.loads(line) for line in trace.read_text().splitlines()] if trace.exists() else []

        wait_until(lambda: len(lines()) > 3, timeout=30, describe=lambda: f"{lines()}")
        prometheus.kill()
        wait_until(lambda: lines()[-1].get("prometheus") is False, timeout=30, describe=lambda: f"{lines()[-1]}")
        prometheus.start()
        set_loads(exporter, prometheus, nuc=75, agx=10, orin=20)
        wait_until(
            lambda: sum(line.get("loads", {}).get("nuc", {}).get("cpu") == 75 for line in lines()) >= 5,
            timeout=30,
            describe=lambda: f"{lines()[-5:]}",
        )
        recorder.send_signal(signal.SIGTERM)
        said = recorder.communicate(timeout=10)[1]
        assert recorder.returncode == 0
    assert "recorded as away" in said
    assert "Prometheus answers again" in said
    replayed = json.loads(offloader("replay", trace, "--json").stdout)
    assert [move["from"] for move in replayed["moves"]] == [None, None, "nuc"]


def test_explain_says_where_prometheus_is_not() -> None:
    ran = offloader("explain", "--worker", "agx", "--prometheus", f"http://127.0.0.1:{free_port()}")
    assert ran.returncode == 1
    assert "Prometheus at http://127.0.0.1" in ran.stderr
