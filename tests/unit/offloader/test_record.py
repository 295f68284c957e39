"""What is recorded is what a replay may decide on."""

import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from posture_offloader.cli import main
from posture_offloader.record import record
from posture_offloader.site import Site

from posture_edge import load, placement


class SlowSite(Site):
    """Nodes of which the first look takes long."""

    looks = 0

    def look(self) -> list[placement.Node]:
        SlowSite.looks += 1
        time.sleep(0.5 if SlowSite.looks == 1 else 0)
        return [placement.Node(each.name, {"cpu": 5.0}) for each in self.nodes]


@pytest.fixture
def site() -> Site:
    SlowSite.looks = 0
    nodes = (load.Node("nuc", worker=False), load.Node("agx"))
    return SlowSite(load.Prometheus("http://127.0.0.1:9"), (), nodes, ("pi1",), "nuc", False, 2.0, placement.Settings())


def test_looks_that_were_missed_are_not_made_up_for(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    record(site, path, interval_s=0.1, duration_s=1, said=print)
    times = [json.loads(line)["t"] for line in path.read_text().splitlines()[1:]]
    assert all(later - earlier > 0.03 for earlier, later in pairwise(times))
    assert 5 <= len(times) <= 7


def test_a_home_that_takes_no_streams_is_no_node_of_the_trace(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    record(replace(site, tainted=True), path, interval_s=0.1, duration_s=0.1, said=print)
    header = json.loads(path.read_text().splitlines()[0])
    assert (header["home"], header["nodes"]) == (None, ["agx"])


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("posture_stream_load={'cpu': 'much'}", "posture_stream_load: cpu must be a number"),
        ("posture_scrape_interval=often", "posture_scrape_interval must be a number"),
        ("posture_streams_per_node=few", "posture_streams_per_node must be a number"),
        ("posture_metrics=['cpu']", "metrics: an entry is a dictionary"),
        ("posture_prometheus_password='{{ vault_password }}'", "set POSTURE_PROMETHEUS_PASSWORD"),
        ("posture_taint_home='{{ vault_taint }}'", "posture_taint_home is a template"),
    ],
)
def test_a_variable_that_says_nothing_is_named(
    variable: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text(f"[home]\nnuc\n[all:vars]\nposture_prometheus_url=http://127.0.0.1:9\n{variable}\n")
    assert main(["explain", "-i", str(inventory)]) == 1
    assert said in capsys.readouterr().err
