"""Bare inference: `python -m tests.bench.bare DIRECTORY THREADS PASSES COUNT` prints images/s.

Each thread has an estimator of its own and pictures that are already decoded and in the size that the analyzer gives to
the model: nothing but the model is measured.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import cv2
import mediapipe as mp
import numpy as np
from numpy.typing import NDArray
from posture_analyzer import picture

WARM_UP = 5


def main(directory: str, threads: int, passes: int, count: int) -> float:
    """Return images/s over all threads."""
    pixels = [
        cv2.cvtColor(picture.resize(np.asarray(cv2.imread(str(path)), np.uint8)), cv2.COLOR_BGR2RGB)
        for path in sorted(Path(directory).iterdir())
    ]
    barrier = Barrier(threads + 1)
    with ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit(_infer, pixels, passes, count // threads, barrier) for _ in range(threads)]
        barrier.wait()
        began = time.perf_counter()
        for run in runs:
            run.result()
        return count // threads * threads / (time.perf_counter() - began)


def _infer(pixels: list[NDArray[Any]], passes: int, count: int, barrier: Barrier) -> None:
    with mp.solutions.pose.Pose(static_image_mode=True, model_complexity=1) as pose:
        for number in range(WARM_UP):
            pose.process(pixels[number % len(pixels)])
        barrier.wait()
        for number in range(count):
            for _ in range(passes):
                pose.process(pixels[number % len(pixels)])


if __name__ == "__main__":
    print(main(sys.argv[1], *map(int, sys.argv[2:])))
