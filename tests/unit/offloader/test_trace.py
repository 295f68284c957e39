"""What a trace may look like, and what is said about one that does not."""

from pathlib import Path

import pytest
from posture_offloader.trace import Header, TraceError, parse_trace, read_trace

HEADER = '{"home": "nuc", "nodes": ["nuc", "agx"], "streams": ["pi1"], "stream_load": {"gpu": 20.0}}'


def test_reads_every_key() -> None:
    trace = parse_trace(
        [
            HEADER,
            "",
            '{"t": 1, "loads": {"nuc": {"gpu": 45.0}}, "not_ready": ["agx"], "cordoned": ["nuc"], "prometheus": false}',
        ]
    )
    assert trace.header == Header("nuc", ("nuc", "agx"), ("pi1",), {"gpu": 20.0})
    (tick,) = trace.ticks
    assert (tick.time, tick.loads, tick.prometheus) == (1, {"nuc": {"gpu": 45.0}}, False)
    assert (tick.not_ready, tick.cordoned) == (frozenset({"agx"}), frozenset({"nuc"}))


def test_home_is_a_node_whether_the_header_lists_it_or_not() -> None:
    assert parse_trace(['{"home": "nuc", "nodes": ["agx"], "streams": []}', '{"t": 0}']).header.nodes == ("nuc", "agx")


def test_a_null_load_is_an_absent_one() -> None:
    assert parse_trace([HEADER, '{"t": 0, "loads": {"nuc": {"gpu": null, "cpu": 3}}}']).ticks[0].loads == {
        "nuc": {"cpu": 3}
    }


@pytest.mark.parametrize("value", ["250", "-1", "NaN", "Infinity", "100.1"])
def test_a_load_that_is_no_percentage_is_not_known_and_says_why(value: str) -> None:
    (tick,) = parse_trace([HEADER, f'{{"t": 0, "loads": {{"nuc": {{"gpu": {value}}}, "agx": {{"gpu": 1}}}}}}']).ticks
    assert tick.loads == {"agx": {"gpu": 1}}
    assert "gpu" in tick.bad["nuc"]
    assert "is no percentage" in tick.bad["nuc"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "trace:1: the first line must be the header"),
        (['{"t": 0, "loads": {}}'], "trace:1: the first line must be the header"),
        ([HEADER], "no tick follows the header"),
        ([HEADER, '{"t": 0, "lo'], "trace:2: no JSON"),
        ([HEADER, "[1]"], "trace:2: a line must be a JSON object, this is [1]"),
        ([HEADER, '{"loads": {}}'], "trace:2: t must be seconds, it is null"),
        ([HEADER, '{"t": NaN}'], "trace:2: t must be seconds, it is NaN"),
        ([HEADER, '{"t": true}'], "trace:2: t must be seconds, it is true"),
        ([HEADER, '{"t": 3}', '{"t": 3}'], "trace:3: t is 3, which is not after 3 of the line before"),
        ([HEADER, '{"t": 0, "loads": []}'], "trace:2: loads must be an object of nodes"),
        ([HEADER, '{"t": 0, "loads": {"nuc": 4}}'], "trace:2: loads of nuc: must be an object of metrics, it is 4"),
        (
            [HEADER, '{"t": 0, "loads": {"nuc": {"gpu": "4"}}}'],
            'loads of nuc: gpu must be a number of percent, it is "4"',
        ),
        ([HEADER, '{"t": 0, "not_ready": "agx"}'], 'trace:2: not_ready must be a list of names, it is "agx"'),
        ([HEADER, '{"t": 0, "prometheus": 0}'], "trace:2: prometheus must be true or false, it is 0"),
        (
            ['{"home": 1, "nodes": [], "streams": []}', '{"t": 0}'],
            "trace:1: home must be a node's name or null, it is 1",
        ),
        (['{"nodes": 3, "streams": []}', '{"t": 0}'], "trace:1: nodes must be a list of names, it is 3"),
    ],
)
def test_an_unreadable_trace_names_the_line_and_the_cause(lines: list[str], said: str) -> None:
    with pytest.raises(TraceError, match="trace") as caught:
        parse_trace(lines)
    assert said in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.jsonl: cannot be read"):
        read_trace(tmp_path / "none.jsonl")


def test_a_header_gives_back_what_it_was_read_from() -> None:
    header = Header("nuc", ("nuc", "agx"), ("pi1",), {"gpu": 20.0})
    import json

    assert parse_trace([json.dumps(header.as_json()), '{"t": 0}']).header == header


@pytest.mark.parametrize("load", ["NaN", "-1", "Infinity", "1" + 400 * "0"])
def test_a_stream_load_that_is_no_percentage_is_refused(load: str) -> None:
    header = f'{{"home": null, "nodes": ["agx"], "streams": ["pi1"], "stream_load": {{"cpu": {load}}}}}'
    with pytest.raises(TraceError, match=r"trace:1: stream_load: cpu .* is no percentage"):
        parse_trace([header, '{"t": 0}'])


def test_numbers_and_nesting_beyond_measure_are_told_by_line() -> None:
    header = '{"home": null, "nodes": ["agx"], "streams": ["pi1"]}'
    with pytest.raises(TraceError, match="trace:2: t must be seconds"):
        parse_trace([header, f'{{"t": 1{400 * "0"}}}'])
    with pytest.raises(TraceError, match="trace:2: no JSON"):
        parse_trace([header, 100_000 * "["])
    trace = parse_trace([header, f'{{"t": 0, "loads": {{"agx": {{"cpu": 1{400 * "0"}}}}}}}'])
    assert "inf is no percentage" in trace.ticks[0].bad["agx"]
