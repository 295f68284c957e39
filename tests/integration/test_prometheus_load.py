"""Loads as a real Prometheus gives them, which scrapes real HTTP exporters."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from posture_edge.load import (
    DEFAULT_METRICS,
    LoadReport,
    Metric,
    Node,
    NodeLoad,
    PrometheusError,
    metric_from,
    read_loads,
)
from posture_edge.load import Prometheus as Client
from tests.support.exporters import Exporter
from tests.support.prometheus import Prometheus, Target, find_binary
from tests.support.waiting import free_port, wait_until

INTERVAL_S = 0.5
GPU, CPU, MEMORY = DEFAULT_METRICS
# What these exporters answer, shortened: the metric that is asked for, and what could be mistaken for it.
LAB = """\
# HELP jetson_gpu_usage_percent GPU usage
# TYPE jetson_gpu_usage_percent gauge
jetson_gpu_usage_percent 37
jetson_memory_used_mb 5765
jetson_cpu_combined_percent 23
"""
ORIN = "# TYPE jetson_orin_gpu_load_percent gauge\njetson_orin_gpu_load_percent 4.1\n"
JETSON_STATS = """\
# HELP jetson_usage_cpu CPU % schedutil
# TYPE jetson_usage_cpu gauge
jetson_usage_cpu{cpu="cpu_1"} 12.0
jetson_usage_cpu{cpu="cpu_2"} 9.0
# HELP jetson_usage_gpu GPU % schedutil
# TYPE jetson_usage_gpu gauge
jetson_usage_gpu{gpu="val"} 64.0
jetson_usage_gpu{gpu="frq"} 1.3005e+06
jetson_usage_gpu{gpu="min_freq"} 306000.0
jetson_usage_gpu{gpu="max_freq"} 1.3005e+06
# HELP jetson_usage_ram Memory usage
# TYPE jetson_usage_ram gauge
jetson_usage_ram{ram="used"} 5.1e+06
"""
TEGRASTATS = """\
# TYPE tegrastats_cpu_frequency_megahertz gauge
tegrastats_cpu_frequency_megahertz{core="0"} 1344
# TYPE tegrastats_cpu_load_percentage gauge
tegrastats_cpu_load_percentage{core="0"} 20
tegrastats_cpu_load_percentage{core="1"} 40
# TYPE tegrastats_gr3d_frequency_megahertz gauge
tegrastats_gr3d_frequency_megahertz 611
# TYPE tegrastats_gr3d_usage_percentage gauge
tegrastats_gr3d_usage_percentage 81
# TYPE tegrastats_ram_total_megabytes gauge
tegrastats_ram_total_megabytes 8000
# TYPE tegrastats_ram_used_megabytes gauge
tegrastats_ram_used_megabytes 2000
"""


def node_exporter(busy: Callable[[], float] = lambda: 0.3, *, stamped: bool = True) -> Callable[[], str]:
    """Return what a node exporter answers where the cores are that busy and a quarter of the memory is in use."""
    last_s, idle_s = time.time(), 5000.0

    def text() -> str:
        nonlocal last_s, idle_s
        now_s = time.time()
        # With its own time a counter's rate is exact, however late a busy machine's answer comes.
        stamp = f" {round(1000 * now_s)}" if stamped else ""
        idle_s += (now_s - last_s) * (1 - busy())
        last_s = now_s
        lines = ["# TYPE node_cpu_seconds_total counter"]
        for core in range(4):
            lines.append(f'node_cpu_seconds_total{{cpu="{core}",mode="idle"}} {idle_s:.4f}{stamp}')
            lines.append(f'node_cpu_seconds_total{{cpu="{core}",mode="user"}} {now_s - idle_s:.4f}{stamp}')
        lines += ["node_memory_MemAvailable_bytes 3e+09", "node_memory_MemFree_bytes 1e+09"]
        return "\n".join([*lines, "node_memory_MemTotal_bytes 4e+09", ""])

    return text


@dataclass
class Station:
    """A Prometheus, and the exporters that it scrapes, by the name of their node."""

    prometheus: Prometheus
    exporters: dict[str, Exporter]
    targets: list[Target]

    def read(self, *metrics: Metric, nodes: Iterable[Node] = ()) -> LoadReport:
        asked = list(nodes) or [Node(name) for name in self.exporters]
        return read_loads(Client(self.prometheus.url), metrics, asked, scrape_interval_s=INTERVAL_S)

    def wait_load(
        self, node: str, *metrics: Metric, until: Callable[[NodeLoad], object], timeout: float = 15
    ) -> NodeLoad:
        """Return the node's load as soon as it meets the condition."""
        latest: list[NodeLoad] = []

        def meets() -> bool:
            latest[:] = [self.read(*metrics, nodes=[Node(node)]).nodes[node]]
            return bool(until(latest[0]))

        wait_until(meets, timeout=timeout, describe=lambda: f"the load of {node}, which is {latest[0]}")
        return latest[0]


@contextmanager
def running(*more: Target, **texts: str | Callable[[], str]) -> Iterator[Station]:
    """Scrape exporters of these texts, named as their nodes, and further targets; the first scrape comes after 5 s."""
    with tempfile.TemporaryDirectory(prefix="posture-test-") as directory, ExitStack() as stack:
        exporters = {node: stack.enter_context(Exporter(text)) for node, text in texts.items()}
        targets = [*more, *(Target(exporter.address, {"node": node}) for node, exporter in exporters.items())]
        prometheus = stack.enter_context(Prometheus(Path(directory), targets, scrape_interval_s=INTERVAL_S))
        prometheus.wait_for("up == 1", lambda series: len(series) == len(targets))
        yield Station(prometheus, exporters, targets)


def known(load: NodeLoad) -> bool:
    return load.unknown is None


@pytest.fixture(scope="module")
def lab() -> Iterator[Station]:
    """One of each exporter. A test that changes one of them has that one to itself."""
    here, many = f"127.0.0.1:{free_port()}", Exporter()
    command = [find_binary("prometheus-node-exporter"), f"--web.listen-address={here}", "--log.level=error"]
    with subprocess.Popen(command) as process, many:
        try:
            with running(
                Target(here, {"node": "here"}),
                Target(many.address, job="many", honor_labels=True),
                agx=LAB,
                orin=ORIN,
                stats=JETSON_STATS,
                load=JETSON_STATS.replace('"val"', '"load"'),
                tegra=TEGRASTATS,
                nuc=node_exporter(),
                liar="jetson_gpu_usage_percent 250\nmy_gpu NaN\n",
                negative="jetson_gpu_usage_percent -5\nmy_gpu +Inf\n",
                two='jetson_gpu_usage_percent{gpu="0"} 5\njetson_gpu_usage_percent{gpu="1"} 6\n',
                file="",
                step=node_exporter(),
                dying=LAB,
                hanging=node_exporter(stamped=False),
            ) as station:
                station.wait_load("nuc", CPU, until=known)
                station.exporters["many"] = many
                yield station
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("node", "entry", "percent"),
    [
        ("agx", {"name": "gpu"}, 37),
        ("orin", {"name": "gpu"}, 4.1),
        ("agx", {"name": "gpu", "preset": "lab_jetson"}, 37),
        ("stats", {"name": "gpu", "preset": "jetson_stats"}, 64),
        ("load", {"name": "gpu", "preset": "jetson_stats"}, 64),
        ("tegra", {"name": "gpu", "preset": "tegrastats"}, 81),
        ("tegra", {"name": "cpu", "preset": "tegrastats"}, 30),
        ("tegra", {"name": "memory", "preset": "tegrastats"}, 25),
        ("nuc", {"name": "cpu", "preset": "node_exporter"}, 30),
        ("nuc", {"name": "memory", "preset": "node_exporter"}, 25),
        ("nuc", {"name": "memory", "query": "1 - node_memory_MemFree_bytes / 4e9", "scale": "ratio"}, 75),
        ("agx", {"name": "gpu", "preset": "jetson_stats", "query": "jetson_cpu_combined_percent"}, 23),
        ("agx", {"name": "x", "query": "sum by (node) (jetson_cpu_combined_percent) # mine", "high": 9, "low": 8}, 23),
    ],
)
def test_each_preset_reads_its_exporter_and_ones_own_query_wins(
    lab: Station, node: str, entry: dict[str, Any], percent: float
) -> None:
    metric = metric_from(entry)
    load = lab.read(metric).nodes[node]
    assert load.unknown is None
    reading = load.readings[metric.name]
    assert reading.percent == pytest.approx(percent, abs=0.5 if metric.name == "cpu" else 0.01)
    assert 0 <= reading.age_s <= 2 * INTERVAL_S


@pytest.mark.parametrize(
    ("node", "query", "cause"),
    [
        ("liar", GPU.query, "250 percent"),
        ("negative", GPU.query, "-5 percent"),
        ("two", GPU.query, 'gpu="1"'),
        ("liar", "my_gpu", "nan percent"),
        ("negative", "my_gpu", "inf percent"),
    ],
)
def test_what_cannot_be_is_an_error_and_no_load(lab: Station, node: str, query: str, cause: str) -> None:
    report = lab.read(Metric("gpu", query))
    load = report.nodes[node]
    assert load.readings == {}
    assert load.unknown in report.errors
    for part in (f"metric gpu of node {node}", cause, lab.exporters[node].address, f"query: {query}"):
        assert part in (load.unknown or "")
    if query == GPU.query:
        assert report.nodes["agx"].unknown is None, "the others are read all the same"


def test_a_node_without_series_is_unknown(lab: Station) -> None:
    load = lab.read(*DEFAULT_METRICS).nodes["agx"]
    assert load.readings.keys() == {"gpu"}
    assert load.missing == ("cpu", "memory")
    assert "metric cpu of node agx is missing" in (load.unknown or "")


def test_nodes_are_found_by_their_address(lab: Station) -> None:
    """The label is one that these series do not have."""
    metric = Metric("gpu", GPU.query, node_label="hostname")
    nodes = Node("first", lab.exporters["agx"].address), Node("second", "10.0.0.1")
    report = lab.read(metric, nodes=nodes)
    assert report.nodes["first"].readings["gpu"].percent == 37
    assert "check label hostname" in (report.nodes["second"].unknown or "")


def test_a_refused_query_leaves_the_others(lab: Station) -> None:
    report = lab.read(GPU, Metric("cpu", "rate(my_cpu[1m]", required_by=("orin",)), nodes=[Node("agx"), Node("orin")])
    [error] = report.errors
    assert "metric cpu: " in error
    assert "parse error" in error
    assert "(query: rate(my_cpu[1m])" in error
    assert report.nodes["agx"].unknown is None
    assert report.nodes["orin"].missing == ("cpu",)


def test_the_age_of_a_file_that_a_script_writes(lab: Station) -> None:
    """The exporter answers as ever when the script behind the file has died."""
    written = time.time()
    lab.exporters["file"].text = lambda: f'my_gpu 5\nnode_textfile_mtime_seconds{{file="gpu.prom"}} {written:.3f}\n'
    metric = Metric("gpu", "my_gpu", sampled_at="node_textfile_mtime_seconds{file='gpu.prom'}")
    lab.wait_load("file", metric, until=known)
    load = lab.wait_load("file", metric, until=lambda load: load.stale)
    assert load.stale["gpu"] == pytest.approx(time.time() - written, abs=0.5)
    written = time.time()
    lab.wait_load("file", metric, until=known)


def test_cpu_follows_the_real_load_within_two_scrapes(lab: Station) -> None:
    """That is 4 s at the default interval of 2 s."""
    busy = 0.1
    lab.exporters["step"].text = node_exporter(lambda: busy)
    lab.wait_load("step", CPU, until=lambda load: known(load) and load.readings["cpu"].percent < 15)
    exporter = lab.exporters["step"]
    busy, scrapes = 0.9, len(exporter.requests)
    lab.wait_load("step", CPU, until=lambda load: known(load) and load.readings["cpu"].percent > 85)
    assert len(exporter.requests) - scrapes <= 3, "a third may come before the second is looked at"


def test_an_exporter_that_dies_and_one_that_hangs_are_unknown_at_once(lab: Station) -> None:
    lab.wait_load("hanging", CPU, MEMORY, until=known)
    lab.wait_load("dying", GPU, until=known)
    lab.exporters["dying"].stop()
    lab.exporters["hanging"].hang = True
    began = time.monotonic()
    load = lab.wait_load("dying", GPU, until=lambda load: load.unknown)
    assert (load.readings, load.missing) == ({}, ("gpu",))
    load = lab.wait_load("hanging", CPU, MEMORY, until=lambda load: set(load.missing) == {"cpu", "memory"})
    assert load.readings == {}
    assert time.monotonic() - began < 3 * INTERVAL_S + 0.5
    assert known(lab.read(GPU, nodes=[Node("orin")]).nodes["orin"])
    lab.exporters["dying"].start()
    lab.wait_load("dying", GPU, until=known)


def test_prometheus_away_and_back() -> None:
    with running(agx=LAB, nuc=node_exporter()) as made:
        made.wait_load("nuc", CPU, MEMORY, until=known)
        made.prometheus.kill()
        killed = time.time()
        with pytest.raises(PrometheusError, match=rf"{made.prometheus.url} cannot be reached .*check the URL"):
            made.read(*DEFAULT_METRICS)

        # It comes back with old samples, which nothing has marked as ended, and scrapes only 5 s later.
        made.prometheus.start()
        load = made.wait_load("agx", GPU, until=lambda load: load.stale)
        assert load.stale["gpu"] == pytest.approx(time.time() - killed, abs=INTERVAL_S + 0.5)
        assert load.readings == {}
        assert re.search(r"metric gpu of node agx is \d\.\d s old, .*query: jetson_gpu", load.unknown or "")
        load = made.wait_load("nuc", CPU, MEMORY, until=lambda load: load.stale)
        assert load.readings.keys() | load.stale.keys() == {"cpu", "memory"}

        made.wait_load("agx", GPU, until=known)
        made.wait_load("nuc", CPU, MEMORY, until=known)


def test_a_thousand_nodes(lab: Station) -> None:
    """One exporter speaks for all of them."""
    names = [f"n{number:04}" for number in range(1000)]

    def text() -> str:
        now = time.time()
        lines = []
        for number, node in enumerate(names):
            idle_s = now * (1 - number / 1000)
            series = f'node_cpu_seconds_total{{node="{node}",mode="idle",cpu='
            lines += [f'{series}"{core}"}} {idle_s:.4f} {round(1000 * now)}' for core in range(4)]
            lines.append(f'node_memory_MemAvailable_bytes{{node="{node}"}} {1000 - number}')
            lines.append(f'node_memory_MemTotal_bytes{{node="{node}"}} 1000')
            lines.append(f'jetson_gpu_usage_percent{{node="{node}"}} {number / 10}')
        return "\n".join([*lines, ""])

    nodes = [Node(name) for name in names]
    reports: list[LoadReport] = []

    def all_known() -> bool:
        reports[:] = [lab.read(*DEFAULT_METRICS, nodes=nodes)]
        return all(map(known, reports[0].nodes.values()))

    lab.exporters["many"].text = text
    try:
        wait_until(all_known, timeout=20, describe=lambda: f"the load of all nodes: {reports[0].nodes['n0500']}")
    finally:
        lab.exporters["many"].text = ""
    assert reports[0].errors == ()
    for number, name in enumerate(names):
        readings = reports[0].nodes[name].readings
        assert readings["gpu"].percent == pytest.approx(number / 10)
        assert readings["memory"].percent == pytest.approx(number / 10)
        assert readings["cpu"].percent == pytest.approx(number / 10, abs=0.5)


def test_the_real_node_exporter(lab: Station) -> None:
    load = lab.wait_load("here", CPU, MEMORY, until=known)
    memory = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    used = 100 * (1 - int(memory["MemAvailable:"]) / int(memory["MemTotal:"]))
    assert load.readings["memory"].percent == pytest.approx(used, abs=5)
    one_core = 100 / (os.cpu_count() or 1)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            lab.wait_load("here", CPU, until=lambda load: known(load) and load.readings["cpu"].percent > 0.8 * one_core)
        finally:
            busy.kill()


PASSWORD = "Geheim-lab"
BCRYPT = "$2b$04$posture.edge.tests.sa.wxdKrLpiiuZg62CVGa6E9PfDH0Xa5d."


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[Prometheus, Path]]:
    """A Prometheus behind TLS and a password, and its authority's certificate."""
    with tempfile.TemporaryDirectory(prefix="posture-test-") as name:
        directory = Path(name)
        request = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ]

        def make(subject: str, key: str, certificate: str, *more: str) -> None:
            command = [*request, "-subj", f"/CN={subject}", "-keyout", key, "-out", certificate, *more]
            subprocess.run(command, cwd=directory, check=True, capture_output=True)

        make("Test authority", "ca.key", "ca.pem")
        names = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:false")
        make("Test Prometheus", "own.key", "own.pem", "-CA", "ca.pem", "-CAkey", "ca.key", *names)
        config = {
            "tls_server_config": {"cert_file": "own.pem", "key_file": "own.key"},
            "basic_auth_users": {"lab": BCRYPT},
        }
        server = Prometheus(directory, web_config=config)
        server.session.verify, server.session.auth = str(directory / "ca.pem"), ("lab", PASSWORD)
        with server:
            yield server, directory / "ca.pem"


def test_tls_and_password(guarded: tuple[Prometheus, Path]) -> None:
    server, authority = guarded
    client = Client(server.url, user="lab", password=PASSWORD, ca_file=str(authority))
    assert "finds no series" in (read_loads(client, [GPU], [Node("agx")]).nodes["agx"].unknown or "")
    client = Client(server.url.replace("://", f"://lab:{PASSWORD}@"), ca_file=str(authority))
    assert read_loads(client, [GPU], [Node("agx")]).nodes["agx"].unknown


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ({}, "401 Unauthorized: check the token, or user and password"),
        ({"user": "lab", "password": "Geheim-wrong"}, "401 Unauthorized"),
        ({"token": "Geheim-token"}, "401 Unauthorized"),
        ({"user": "lab", "password": PASSWORD, "ca_file": None}, "no certificate to trust"),
        ({"user": "lab", "password": PASSWORD, "ca_file": None, "scheme": "http"}, "check "),
    ],
)
def test_what_is_refused_is_told_without_secrets(
    guarded: tuple[Prometheus, Path], arguments: dict[str, Any], cause: str
) -> None:
    server, authority = guarded
    scheme, given = arguments.get("scheme", "https"), {"ca_file": str(authority), **arguments}
    url = server.url.replace("https", scheme)
    client = Client(url, **{name: value for name, value in given.items() if name != "scheme"})
    with pytest.raises(PrometheusError) as failure:
        read_loads(client, DEFAULT_METRICS, [Node("agx")])
    assert cause in str(failure.value)
    assert url in str(failure.value)
    assert "Geheim" not in str(failure.value)


# The module


def run_module(arguments: dict[str, Any], *options: str) -> dict[str, Any]:
    """Return the result of node_load_info on this machine, as a user's ad-hoc command gives it."""
    command = [
        str(Path(sys.executable).parent / "ansible"),
        "localhost",
        *("-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"),
        *("-m", "posture.edge.node_load_info", "-a", json.dumps(arguments), *options),
    ]
    root = Path(__file__).parents[2]
    environment = os.environ | {"ANSIBLE_CONFIG": str(root / "ansible.cfg"), "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1"}
    environment["ANSIBLE_STDOUT_CALLBACK"] = "ansible.posix.json"
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ran.stdout, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)["plays"][0]["tasks"][0]["hosts"]["localhost"]
    return result


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_the_module_returns_loads_and_reasons(lab: Station, options: tuple[str, ...]) -> None:
    result = run_module(
        {
            "prometheus_url": lab.prometheus.url,
            "scrape_interval": INTERVAL_S,
            "nodes": [{"name": "nuc", "role": "home"}, {"name": "agx"}, {"name": "liar"}],
        },
        *options,
    )
    assert result["changed"] is False
    assert result["loads"]["nuc"]["memory"]["percent"] == 25
    assert result["loads"]["agx"]["gpu"]["percent"] == 37
    assert 0 <= result["loads"]["agx"]["gpu"]["age_s"] < 3 * INTERVAL_S
    assert result["unknown"].keys() == {"agx", "liar"}
    assert result["missing"] == {"agx": ["cpu", "memory"], "liar": ["cpu", "memory"]}
    assert result["stale"] == {}
    [error] = result["errors"]
    assert "250 percent" in error


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ({"token": "Geheim-token"}, "cannot be reached"),
        ({"metrics": [{"name": "gpu", "high": 300}]}, "metric gpu: high 300"),
        ({"timeout": -1}, "timeout must be more than 0 seconds"),
    ],
)
def test_the_module_fails_where_prometheus_cannot_be_asked(arguments: dict[str, Any], cause: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = run_module({"prometheus_url": url, "nodes": [{"name": "agx"}], **arguments})
    assert result["failed"] is True
    assert cause in result["msg"]
    assert "Geheim" not in json.dumps(result)
