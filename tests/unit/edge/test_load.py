"""What load.py makes of configuration, of Prometheus's answers, and of everything that is not one."""

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from posture_edge.load import (
    DEFAULT_METRICS,
    PRESETS,
    LoadReport,
    Metric,
    Node,
    Prometheus,
    PrometheusError,
    Reading,
    metric_from,
    metrics_from,
    nodes_from,
    read_loads,
)
from posture_edge.prometheus import Answer, QueryError
from tests.support.exporters import Exporter
from tests.support.waiting import free_port, wait_until

NOW = 1_790_000_000.0
GPU = Metric("gpu", "my_gpu", required_by="workers")
AGX = Node("agx", "10.0.0.31")
HOME = Node("nuc", "10.0.0.30", worker=False)
Series = tuple[Mapping[str, str], float]


class Asked(Prometheus):
    """A Prometheus that answers one vector to everything, or raises what it is given."""

    def __init__(self, *answers: tuple[Series, ...] | Exception) -> None:
        super().__init__("http://prometheus.invalid:9090")
        self._answers = list(answers)
        self.queries: list[str] = []

    def query(self, promql: str) -> Answer:
        self.queries.append(promql)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Answer(NOW if answer else 0.0, answer)


def value(number: float, **labels: str) -> Series:
    return {"__name__": "my_gpu", **labels}, number


def sampled(age_s: float, **labels: str) -> Series:
    return {"posture_times": "1", **labels}, NOW - age_s


def read(*series: Series, node: Node = AGX, metric: Metric = GPU, others: tuple[Node, ...] = ()) -> LoadReport:
    return read_loads(Asked(series), [metric], [node, *others])


def test_value_and_age_of_a_node() -> None:
    report = read(value(42, node="agx"), sampled(1.5, node="agx"))
    assert report.nodes["agx"].readings == {"gpu": Reading(42, 1.5)}
    assert report.nodes["agx"].unknown is None
    assert report.errors == ()


@pytest.mark.parametrize(
    ("percent", "read_as"), [(0, 0), (100, 100), (100.5, 100), (-0.5, 0), (99.96, 99.96), (-0.0, 0), (0.4, 0.4)]
)
def test_rounding_is_taken_as_the_limit(percent: float, read_as: float) -> None:
    report = read(value(percent, node="agx"), sampled(1, node="agx"))
    assert report.nodes["agx"].readings["gpu"].percent == read_as


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 250, 100.6, -0.6, -5])
@pytest.mark.parametrize("node", [AGX, HOME])
def test_an_impossible_value_is_an_error_even_where_the_metric_is_not_required(number: float, node: Node) -> None:
    report = read(value(number, node=node.name, job="x"), sampled(1, node=node.name), node=node)
    load = report.nodes[node.name]
    [error] = report.errors
    assert load.readings == {}
    assert load.unknown == error
    assert load.missing == ()
    for part in ("gpu", node.name, f"{number:g} percent", f'my_gpu{{node="{node.name}", job="x"}}', "query: my_gpu"):
        assert part in error


@pytest.mark.parametrize("node", [AGX, HOME])
def test_two_series_for_a_node_are_an_error_that_names_both(node: Node) -> None:
    series = value(1, node=node.name, job="a"), value(2, node=node.name, job="b"), sampled(1, node=node.name)
    report = read(*series, node=node)
    [error] = report.errors
    assert report.nodes[node.name].unknown == error
    for part in ("gpu", node.name, 'job="a"', 'job="b"', "query: my_gpu"):
        assert part in error


@pytest.mark.parametrize(
    ("series", "missing", "stale", "reason"),
    [
        ((), True, False, "finds no series"),
        ((value(1, node="orin"), sampled(1, node="orin")), True, False, "none of the query's 1 series"),
        ((value(1, instance="10.0.0.9:1"), sampled(1, instance="10.0.0.9:1")), True, False, '"10.0.0.9:1"} is no node'),
        ((value(1, node="agx"),), True, False, "has ended"),
        ((sampled(1, node="agx"),), True, False, "give no value"),
        ((value(1, node="agx"), sampled(6.1, node="agx")), False, True, "6.1 s old"),
        ((sampled(100, node="agx"),), False, True, "100.0 s old"),
        (
            (value(1, node="agx"), sampled(1, node="agx"), sampled(7, node="agx", instance="b")),
            False,
            True,
            "7.0 s old",
        ),
        (
            (value(1, node="agx"), sampled(7, node="agx"), sampled(1, node="agx", instance="b")),
            False,
            True,
            "7.0 s old",
        ),
    ],
)
def test_a_node_without_fresh_samples_is_unknown(
    series: tuple[Series, ...], missing: bool, stale: bool, reason: str
) -> None:
    report = read(*series, others=(HOME, Node("orin", worker=False)))
    load = report.nodes["agx"]
    assert load.unknown
    assert reason in load.unknown
    for part in ("metric gpu of node agx", "query: my_gpu"):
        assert part in load.unknown
    assert load.readings == {}
    assert load.missing == (("gpu",) if missing else ())
    assert bool(load.stale) == stale
    assert report.errors == ()
    nuc = report.nodes["nuc"]
    assert (nuc.unknown, nuc.missing) == (None, ()), "it can do without"


def test_samples_of_exactly_three_intervals_still_count() -> None:
    assert read(value(1, node="agx"), sampled(6, node="agx")).nodes["agx"].unknown is None


def test_a_stale_value_that_is_not_required_is_left_out() -> None:
    load = read(value(1, node="nuc"), sampled(60, node="nuc"), node=HOME).nodes["nuc"]
    assert (load.readings, load.unknown, load.stale) == ({}, None, {"gpu": 60})


@pytest.mark.parametrize("age_s", [-6.1, math.nan, math.inf, -math.inf])
def test_samples_from_the_future_or_from_never_are_no_samples(age_s: float) -> None:
    load = read(value(1, node="agx"), sampled(age_s, node="agx")).nodes["agx"]
    assert load.readings == {}
    assert load.unknown


def test_a_clock_slightly_ahead_is_age_zero() -> None:
    assert read(value(1, node="agx"), sampled(-0.5, node="agx")).nodes["agx"].readings["gpu"].age_s == 0


@pytest.mark.parametrize(
    ("address", "instance", "found"),
    [
        ("10.0.0.31", "10.0.0.31:9100", True),
        ("10.0.0.31", "10.0.0.31", True),
        ("10.0.0.31", "10.0.0.3:9100", False),
        ("10.0.0.3", "10.0.0.31:9100", False),
        ("10.0.0.31:9100", "10.0.0.31:9100", True),
        ("10.0.0.31:9101", "10.0.0.31:9100", False),
        ("fd00::31", "[fd00::31]:9100", True),
        (None, "agx:9100", True),
        (None, "agx", True),
        ("agx.lab", "agx.lab:9100", True),
    ],
)
def test_a_series_without_the_label_is_found_by_its_instance(address: str | None, instance: str, found: bool) -> None:
    load = read(value(7, instance=instance), sampled(1, instance=instance), node=Node("agx", address)).nodes["agx"]
    assert (load.unknown is None) == found


def test_the_label_wins_over_the_instance() -> None:
    """An exporter on one machine may speak for another one, which need not be among those that are asked for."""
    labels = {"node": "orin", "instance": "10.0.0.31:9100"}
    assert read(value(7, **labels), sampled(1, **labels)).nodes["agx"].unknown
    orin = Node("orin", "10.0.0.32")
    report = read(value(7, **labels), sampled(1, **labels), others=(orin,))
    assert report.nodes["agx"].unknown
    assert report.nodes["orin"].readings["gpu"].percent == 7


def test_an_address_of_two_nodes_belongs_to_neither() -> None:
    report = read(
        value(7, instance="10.0.0.31:1"), sampled(1, instance="10.0.0.31:1"), others=(Node("b", "10.0.0.31"),)
    )
    assert all(load.unknown for load in report.nodes.values())


def test_another_label_names_the_node() -> None:
    metric = Metric("gpu", "my_gpu", node_label="hostname")
    prometheus = Asked((value(7, hostname="agx", node="x"), sampled(1, hostname="agx")))
    assert read_loads(prometheus, [metric], [AGX]).nodes["agx"].unknown is None
    assert "min by (hostname, instance)" in prometheus.queries[0]


def test_a_ratio_becomes_percent() -> None:
    metric = Metric("gpu", "my_gpu", scale="ratio")
    report = read(value(0.25, node="agx"), sampled(1, node="agx"), metric=metric)
    assert report.nodes["agx"].readings["gpu"].percent == 25
    assert read(value(25, node="agx"), sampled(1, node="agx"), metric=metric).errors


@pytest.mark.parametrize(
    ("required_by", "unknown"), [("all", {"agx", "nuc"}), ("workers", {"agx"}), (("nuc",), {"nuc"}), ((), set())]
)
def test_who_must_have_a_metric(required_by: str | tuple[str, ...], unknown: set[str]) -> None:
    report = read(metric=Metric("x", "my_x", required_by=required_by), others=(HOME,))
    assert {name for name, load in report.nodes.items() if load.unknown} == unknown


def test_one_request_for_each_metric_whatever_the_number_of_nodes() -> None:
    prometheus = Asked((), (), ())
    report = read_loads(prometheus, DEFAULT_METRICS, [Node(f"n{number}") for number in range(1000)])
    assert len(prometheus.queries) == 3
    assert len(report.nodes) == 1000


def test_metrics_are_asked_side_by_side() -> None:
    """Each query waits until all have come."""
    together = threading.Barrier(3, timeout=10)

    class Waiting(Asked):
        def query(self, promql: str) -> Answer:
            together.wait()
            return super().query(promql)

    read_loads(Waiting((), (), ()), DEFAULT_METRICS, [AGX])


def test_a_refused_query_is_an_error_and_its_nodes_are_unknown() -> None:
    other = Metric("cpu", "my_cpu")
    prometheus = Asked(QueryError("parse error"), (value(7, node="nuc"), sampled(1, node="nuc")))
    report = read_loads(prometheus, [GPU, other], [AGX, HOME])
    assert report.errors == ("metric gpu: parse error (query: my_gpu)",)
    assert report.nodes["nuc"].unknown is None
    assert "gpu" in report.nodes["agx"].missing
    assert "parse error (query: my_gpu)" in (report.nodes["agx"].unknown or "")


def test_refused_queries_alone_do_not_mean_that_prometheus_is_away() -> None:
    report = read_loads(Asked(QueryError("parse error")), [GPU], [AGX])
    assert report.errors
    assert report.nodes["agx"].unknown


def test_only_where_no_metric_can_be_asked_for_prometheus_is_away() -> None:
    down = PrometheusError("Prometheus at x cannot be reached")
    with pytest.raises(PrometheusError, match="cannot be reached"):
        read_loads(Asked(down, down), [GPU, Metric("cpu", "my_cpu")], [AGX])
    report = read_loads(Asked((), down), [GPU, Metric("cpu", "my_cpu")], [AGX])
    assert report.errors == ("metric cpu: Prometheus at x cannot be reached (query: my_cpu)",)


def test_the_window_follows_the_scrape_interval() -> None:
    prometheus = Asked(())
    report = read_loads(prometheus, [Metric("cpu", "irate(x[$window])")], [AGX], scrape_interval_s=2)
    assert "irate(x[8000ms])" in prometheus.queries[0]
    assert "query: irate(x[8000ms])" in (report.nodes["agx"].unknown or ""), "it can be pasted into Prometheus"


@pytest.mark.parametrize(
    ("query", "selectors"),
    [
        ("my_gpu", ["my_gpu"]),
        ("a or b", ["a", "b"]),
        ("a or a", ["a"]),
        ('a{b="}",c=~"d|e", f=\'{\'}[5m]', ['a{b="}",c=~"d|e", f=\'{\'}']),
        ("100 * (1 - avg by (instance) (rate(a{m='idle'}[4s])))", ["a{m='idle'}"]),
        ("sum(rate(a:b[1m])) by (node) unless up == 0", ["a:b", "up"]),
        ("sum by(x) (a) / on(y) group_left(z) b", ["a", "b"]),
        ("a * ignoring (job) group_right c", ["a", "c"]),
        ("histogram_fraction(0, 1, rate(h[5m]))", ["h"]),
        ("{__name__='a'}", ["{__name__='a'}"]),
        ("clamp_max(a # or b\n, 1e5) > bool 0x1F", ["a"]),
        ("max_over_time(deriv(g[1m])[5m:10s]) and g", ["g"]),
        ("a offset 5m or b @ end()", ["a offset 5m", "b @ end()"]),
        ("rate(a[1m] offset -1h30m)", ["a offset -1h30m"]),
        ("A OR B + Inf", ["A", "B"]),
        ("label_replace(a, 'b', '$1', 'c', '(.*)')", ["a"]),
        ("quantile without (cpu) (0.9, a)", ["a"]),
        ("count_values('v', a) or on () b", ["a", "b"]),
    ],
)
def test_each_selector_of_a_query_is_asked_for_its_samples_times(query: str, selectors: list[str]) -> None:
    assert Metric("x", query).sample_times() == [f"timestamp({selector})" for selector in selectors]


def test_sample_times_of_ones_own_replace_them() -> None:
    metric = metric_from({"name": "gpu", "query": "my_gpu", "sampled_at": "node_textfile_mtime_seconds"})
    assert metric.sample_times() == ["node_textfile_mtime_seconds"]


# Configuration


def test_the_defaults() -> None:
    gpu, cpu, memory = metrics_from(None)
    assert (gpu.high, gpu.low, gpu.required_by) == (60, 50, "workers")
    assert (cpu.high, cpu.low, cpu.required_by) == (60, 50, "all")
    assert (memory.high, memory.low, memory.required_by) == (90, 80, "all")
    assert metrics_from([{"name": "gpu"}, {"name": "cpu"}, {"name": "memory"}]) == (gpu, cpu, memory)


def test_an_entry_changes_its_default_key_by_key() -> None:
    metric = metric_from({"name": "memory", "high": "70", "low": 60, "query": None, "required_by": ["agx"]})
    assert metric == Metric("memory", DEFAULT_METRICS[2].query, high=70, low=60, required_by=("agx",))


@pytest.mark.parametrize(("preset", "name"), [(preset, name) for preset in PRESETS for name in PRESETS[preset]])
def test_a_preset_gives_the_query_and_ones_own_wins(preset: str, name: str) -> None:
    assert metric_from({"name": name, "preset": preset}).query == PRESETS[preset][name]
    assert metric_from({"name": name, "preset": preset, "query": "mine"}).query == "mine"


def test_a_metric_of_ones_own() -> None:
    assert metric_from({"name": "disk", "query": "d", "high": 80, "low": 60}) == Metric("disk", "d", high=80, low=60)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({}, "name is missing"),
        ({"name": "disk", "high": 80, "low": 70}, "metric disk: query is missing"),
        ({"name": "disk", "query": "d", "low": 70}, "metric disk: high is missing"),
        ({"name": "gpu", "hihg": 80}, "metric gpu: there is no key hihg"),
        ({"name": "gpu", "preset": "dcgm"}, "metric gpu: preset dcgm"),
        ({"name": "gpu", "preset": "node_exporter"}, "metric gpu: preset node_exporter"),
        ({"name": "gpu", "query": ""}, "metric gpu: query '' selects no series"),
        ({"name": "gpu", "query": "vector(0)"}, "metric gpu: query 'vector\\(0\\)' selects no series"),
        ({"name": "gpu", "scale": "permille"}, "metric gpu: scale 'permille'"),
        ({"name": "gpu", "high": "much"}, "metric gpu: high is a number of percent, not 'much'"),
        ({"name": "gpu", "high": 101}, "metric gpu: high 101"),
        ({"name": "gpu", "high": math.nan}, "metric gpu: high nan"),
        ({"name": "gpu", "low": 0}, "metric gpu: low 0"),
        ({"name": "gpu", "low": 61}, "metric gpu: low 61"),
        ({"name": "gpu", "node_label": "a-b"}, "metric gpu: node_label 'a-b'"),
        ({"name": "gpu", "node_label": "node)"}, "metric gpu: node_label 'node\\)'"),
        ({"name": "gpu", "required_by": "home"}, "metric gpu: required_by 'home'"),
    ],
)
def test_a_wrong_entry_is_told_by_name_and_key(entry: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^metrics?:? ?.*{named.removeprefix('metric ')}"):
        metric_from(entry)


@pytest.mark.parametrize("entries", [[], [{"name": "gpu"}, {"name": "gpu"}]])
def test_no_metric_and_two_of_a_name_are_refused(entries: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="a name of its own"):
        metrics_from(entries)


def test_nodes() -> None:
    assert nodes_from(
        [{"name": "nuc", "role": "home"}, {"name": "agx", "address": "10.0.0.31"}, {"name": "b", "role": None}]
    ) == (
        Node("nuc", worker=False),
        Node("agx", "10.0.0.31"),
        Node("b"),
    )


@pytest.mark.parametrize("entries", [[{"name": ""}], [{"name": "a"}, {"name": "a"}], [{"name": "a", "role": "master"}]])
def test_wrong_nodes_are_refused(entries: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="nodes: "):
        nodes_from(entries)


# HTTP


@pytest.fixture
def server() -> Iterator[Exporter]:
    with Exporter(answer_of(), content_type="application/json") as exporter:
        yield exporter


def answer_of(*series: tuple[dict[str, str], str]) -> str:
    result = [{"metric": labels, "value": [NOW, text]} for labels, text in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def test_an_answer(server: Exporter) -> None:
    server.text = answer_of(({"a": "b"}, "1.5"), ({}, "NaN"))
    answer = Prometheus(f"{server.url}/prefix/").query("up == 1")
    assert answer.time_s == NOW
    assert answer.series[0] == ({"a": "b"}, 1.5)
    assert math.isnan(answer.series[1][1])
    assert server.requests == ["/prefix/api/v1/query?query=up+%3D%3D+1"]


@pytest.mark.parametrize(
    ("status", "text", "cause", "tries"),
    [
        (401, "Unauthorized", "401 Unauthorized: check the token, or user and password", 1),
        (403, "<html>", "403 Forbidden: check the token", 1),
        (
            404,
            "404 page not found",
            "answers 404 Not Found (text/html), not as Prometheus does: check port and path",
            1,
        ),
        (200, "<html>login</html>", "answers 200 OK (text/html), not as Prometheus does", 1),
        (200, "", "not as Prometheus does", 1),
        (200, "[]", "not as Prometheus does", 1),
        (200, "null", "not as Prometheus does", 1),
        (200, '{"status": "success"}', "not as Prometheus does", 1),
        (200, '{"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}}', "not as Prometheus", 1),
        (200, '{"status": "success", "data": {"resultType": "vector", "result": [{}]}}', "not as Prometheus", 1),
        (200, '{"status": "success", "data": {"resultType": "vector", "result": 7}}', "not as Prometheus", 1),
        (200, '{"data": {"result": [{"metric": null, "value": [1, "2"]}]}}', "not as Prometheus", 1),
        (200, '{"data": {"result": [{"metric": {}, "value": ["NaN", "2"]}]}}', "not as Prometheus", 1),
        (200, 100_000 * "[", "not as Prometheus", 1),
        (500, "oh", "500 Internal Server Error: it may be starting, look at its log", 2),
        (503, "Service Unavailable", "503 Service Unavailable: it may be starting", 2),
        (503, '{"status": "error", "error": "query timed out"}', "503 Service Unavailable (query timed out)", 2),
    ],
)
def test_what_is_no_answer_is_told_with_url_cause_and_next_step(
    server: Exporter, status: int, text: str, cause: str, tries: int
) -> None:
    server.status, server.text, server.content_type = status, text, "text/html; charset=utf-8"
    with pytest.raises(PrometheusError) as failure:
        Prometheus(server.url).query("up")
    assert cause in str(failure.value)
    assert server.url in str(failure.value)
    assert len(server.requests) == tries


@pytest.mark.parametrize("status", [200, 400, 422])
def test_a_refused_query_is_told_in_prometheuss_words(server: Exporter, status: int) -> None:
    server.status, server.text = status, '{"status": "error", "errorType": "bad_data", "error": "parse error at 3"}'
    with pytest.raises(QueryError, match=r"^parse error at 3$"):
        Prometheus(server.url).query("up(")


def test_a_second_try_may_succeed(server: Exporter) -> None:
    def recover() -> str:
        server.status = 200 if len(server.requests) > 1 else 503
        return answer_of()

    server.text = recover
    server.status = 503
    assert Prometheus(server.url).query("up").series == ()
    assert len(server.requests) == 2


def test_nobody_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(PrometheusError, match=rf"{url} cannot be reached \(.*refused\): check the URL"):
        Prometheus(url).query("up")


def test_no_such_host() -> None:
    with pytest.raises(PrometheusError, match=r"http://prometheus.invalid:9090 cannot be reached \("):
        Prometheus("http://prometheus.invalid:9090").query("up")


def test_silence_ends_with_the_timeout_and_is_not_tried_again(server: Exporter) -> None:
    server.hang = True
    began = time.monotonic()
    with pytest.raises(PrometheusError, match=r"does not answer within 0.2 s"):
        Prometheus(server.url, timeout_s=0.2).query("up")
    assert time.monotonic() - began < 2
    wait_until(lambda: server.requests, timeout=5, describe="the request was seen")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "header"),
    [
        ({}, None),
        ({"token": "Geheim\n"}, "Bearer Geheim"),
        ({"user": "lab", "password": "Gehäim:1"}, "Basic bGFiOkdlaMOkaW06MQ=="),
        ({"user": "lab"}, "Basic bGFiOg=="),
    ],
)
def test_credentials(server: Exporter, arguments: dict[str, Any], header: str | None) -> None:
    Prometheus(server.url, **arguments).query("up")
    assert server.authorizations == [header]


def test_credentials_in_the_url_are_used_and_never_told(server: Exporter) -> None:
    prometheus = Prometheus(server.url.replace("://", "://lab:Geh%40im@"))
    prometheus.query("up")
    assert server.authorizations == ["Basic bGFiOkdlaEBpbQ=="]
    server.status = 401
    with pytest.raises(PrometheusError) as failure:
        prometheus.query("up")
    assert "Geh" not in str(failure.value)
    assert server.url in str(failure.value)


def test_credentials_of_the_users_netrc_stay_where_they_are(
    server: Exporter, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password Geheim\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    Prometheus(server.url).query("up")
    Prometheus(server.url, token="token").query("up")
    assert server.authorizations == [None, "Bearer token"]


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("prometheus:9090", {}),
        ("ftp://prometheus", {}),
        ("http://", {}),
        ("http://[::1", {}),
        ("http://lab:Geheim@host:port", {}),
        ("http://host/?token=Geheim", {}),
        ("http://host", {"token": "Geheim", "user": "lab"}),
        ("http://host", {"password": "Geheim"}),
        ("http://host", {"token": "Geheim\r\nX: y"}),
        ("http://host", {"token": "Geheimü"}),
    ],
)
def test_arguments_that_no_request_can_be_made_of(url: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Prometheus") as failure:
        Prometheus(url, **arguments)
    assert "Geheim" not in str(failure.value)


def test_a_ca_file_that_is_not_there(tmp_path: Any) -> None:
    with pytest.raises(PrometheusError, match=r"cannot be asked .*none.pem.*: check the URL and the CA file"):
        Prometheus("https://127.0.0.1:1", ca_file=str(tmp_path / "none.pem")).query("up")
