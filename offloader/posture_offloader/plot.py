"""Draws a replay: each node's pressure over time, the threshold, and where the streams were."""

from pathlib import Path

import matplotlib as mpl

from posture_edge.placement import Settings, pressure
from posture_offloader.replay import Replay

mpl.use("Agg")
from matplotlib import pyplot as plt


def plot(replayed: Replay, settings: Settings, path: Path) -> None:
    """Write the picture to `path`, in the format of its ending. Raises OSError, or ValueError (no such format)."""
    times = [step.time for step in replayed.steps]
    names = list(replayed.steps[-1].plan.verdicts)
    colours = {name: f"C{number % 10}" for number, name in enumerate(names)}
    figure, (loads, places) = plt.subplots(2, sharex=True, figsize=(11, 7), layout="constrained")
    for name in names:
        known = [step.loads.get(name) for step in replayed.steps]
        pressures = [pressure(load, settings.limits)[0] if load else float("nan") for load in known]
        loads.plot(times, pressures, label=name, color=colours[name], linewidth=1)
    loads.axhline(1, color="black", linestyle="--", linewidth=1, label="too busy")
    loads.set(ylabel="pressure: largest load / high", ylim=(0, None))
    loads.legend(loc="upper right")
    streams = sorted(replayed.placements)
    for row, stream in enumerate(streams):
        starts = [(move.time, move.decision.node) for move in replayed.moves if move.decision.stream == stream]
        ends = [*(start for start, _ in starts[1:]), times[-1]]
        for (start, node), end in zip(starts, ends, strict=False):
            places.barh(row, end - start, left=start, height=0.6, color=colours[node] if node else "lightgrey")
    places.set_yticks(range(len(streams)), streams)
    places.invert_yaxis()
    places.set(xlabel="seconds", ylabel="stream, in its node's colour")
    figure.suptitle(f"{replayed.moved} moves, {replayed.flaps} flaps, {replayed.overload_seconds:.0f} s overloaded")
    figure.savefig(path, dpi=110)
    plt.close(figure)
