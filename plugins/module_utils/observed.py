# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What load.py read and what users gave, as placement.py takes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from .load import LoadReport, Metric
from .placement import Limits, Node


def limits_of(metrics: Iterable[Metric]) -> dict[str, Limits]:
    """Return each metric's limits by its name."""
    return {metric.name: Limits(metric.high, metric.low) for metric in metrics}


def nodes_of(report: LoadReport, states: Iterable[Node]) -> list[Node]:
    """Return the nodes with the report's loads in percent, or why they are unknown; `states` says all else of each."""
    return [
        replace(
            state,
            loads={metric: reading.percent for metric, reading in report.nodes[state.name].readings.items()},
            unknown=report.nodes[state.name].unknown,
        )
        for state in states
    ]


def number_of(value: Any, what: str) -> float:
    """Return a number that somebody gave; ValueError says that `what` is none, or below 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number < float("inf"):
        raise ValueError(f"{what} must be a number from 0 on, not {value!r}")
    return number
