"""Times ours and a baseline in turn, so that both meet the same minute of the machine."""

import statistics
import time
from collections.abc import Callable


def seconds(run: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(
    ours: tuple[str, Callable[[], object]], baseline: tuple[str, Callable[[], object]], rounds: int
) -> dict[str, float]:
    """Return the columns of a table: medians in ms under the given names, our slowest, and the median ratio."""
    pairs = [(seconds(baseline[1]), seconds(ours[1])) for _ in range(rounds)]
    return {
        f"{ours[0]}, ms": 1000 * statistics.median(own for _, own in pairs),
        "slowest, ms": 1000 * max(own for _, own in pairs),
        f"{baseline[0]}, ms": 1000 * statistics.median(base for base, _ in pairs),
        "ratio": statistics.median(own / base for base, own in pairs),
    }
