"""The load table as a person reads it."""

from typing import Any

import pytest

from plugins.filter.load_table import load_table

METRICS = ["gpu", "cpu", "memory"]


def entry(node: str, pressure: float | None, **loads: float) -> dict[str, Any]:
    ages = {"gpu": 0.4, "cpu": 1.26, "memory": 0.9}
    return {
        "node": node,
        "role": "home" if node == "nuc" else "worker",
        "verdict": "target" if pressure is not None else "unknown",
        "reason": f"because of {node}",
        "pressure": pressure,
        "loads": {name: {"percent": percent, "age_s": ages[name]} for name, percent in loads.items()},
    }


def test_columns_are_aligned() -> None:
    ranking = [
        entry("agx", 0.52, gpu=31.2, cpu=5, memory=100),
        entry("nuc", 0.006, cpu=0.04, memory=12.34),
        entry("orin", None),
    ]
    assert load_table(ranking, METRICS).splitlines() == [
        "node           GPU    CPU   memory    age  pressure           verdict  reason",
        "agx         31.2 %  5.0 %  100.0 %  1.3 s  #####.....   52 %  target   because of agx",
        "nuc (home)       -  0.0 %   12.3 %  1.3 s  ..........    0 %  target   because of nuc",
        "orin             -      -        -      -  ??????????      -  unknown  because of orin",
    ]


@pytest.mark.parametrize(
    ("pressure", "bar"),
    [
        (0.0, "..........    0 %"),
        (0.099, "..........    9 %"),
        (0.1, "#.........   10 %"),
        (0.999, "#########.   99 %"),
        (0.29, "##........   29 %"),
        (1.0, "##########  100 %"),
        (1.5, "##########  150 %"),
    ],
)
def test_a_full_bar_is_a_full_node(pressure: float, bar: str) -> None:
    assert bar in load_table([entry("agx", pressure, gpu=1)], METRICS)


def test_a_reason_stays_on_its_line() -> None:
    broken = entry("agx", None) | {"reason": "gpu: no\n  answer "}
    assert load_table([broken], METRICS).splitlines()[1].endswith("gpu: no answer")


def test_any_metric_has_a_column() -> None:
    ranking = [entry("agx", 0.5) | {"loads": {"disk_io": {"percent": 50.0, "age_s": 2.0}}}]
    head, row = load_table(ranking, ["disk_io"]).splitlines()
    assert head.split()[:3] == ["node", "disk_io", "age"]
    assert row.split()[:5] == ["agx", "50.0", "%", "2.0", "s"]


def test_without_nodes_there_is_only_the_head() -> None:
    assert load_table([], METRICS).splitlines() == ["node  GPU  CPU  memory  age  pressure  verdict  reason"]
