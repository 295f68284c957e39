# Copyright: the founders of posture.edge
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that shows what `node_select` found as a table for people."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

BAR_CELLS = 10
UNKNOWN = "-"


def load_table(ranking: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """Return `ranking`, as module `node_select` returns it, as lines with a column for each of `metrics`.

    Loads are percent, the age is that of the oldest load in seconds, a pressure of 100 % means a load at its limit.
    """
    titles = ["node", *(name.upper() if len(name) <= 3 else name for name in metrics)]
    titles += ["age", "pressure", "verdict", "reason"]
    rows = [titles, *(_row(entry, metrics) for entry in ranking)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # Numbers stand at the right: the metrics and the age.
    right = range(1, len(metrics) + 2)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _row(entry: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    loads = entry["loads"]
    ages = [load["age_s"] for load in loads.values()]
    return [
        f"{entry['node']} (home)" if entry["role"] == "home" else entry["node"],
        *(f"{loads[name]['percent']:.1f} %" if name in loads else UNKNOWN for name in metrics),
        f"{max(ages):.1f} s" if ages else UNKNOWN,
        _bar(entry["pressure"]),
        entry["verdict"],
        " ".join(entry["reason"].split()),
    ]


def _bar(pressure: float | None) -> str:
    if pressure is None:
        return f"{'?' * BAR_CELLS}  {UNKNOWN:>5}"
    filled = min(BAR_CELLS, int(pressure * BAR_CELLS))
    return f"{'#' * filled:.<{BAR_CELLS}}  {int(round(pressure * 100, 3)):3d} %"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filters of this file by name."""
        return {"load_table": load_table}
