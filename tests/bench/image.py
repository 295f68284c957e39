"""Measures the images on the lab's machine with Docker and prints a Markdown table: python -m tests.bench.image

Sizes above the base, container start -> ready, and runs of build.yml: the first, one that finds nothing to do, and one
after a change of our own code. A lab that is not up comes up for it and goes away again.
"""

import statistics
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from tests.bench.__main__ import table
from tests.lab import containers
from tests.lab.builder import Builder, variables_for
from tests.lab.compose import Compose
from tests.lab.lab import Lab
from tests.lab.registry import Registry
from tests.lab.settings import from_environment

_ROUNDS = 5


def main() -> None:
    """Measure, and print the table."""
    with redirect_stdout(sys.stderr):  # what the playbook prints
        rows = _measure()
    print(table(rows))


def _measure() -> list[dict[str, Any]]:
    with _lab() as lab, tempfile.TemporaryDirectory(prefix="posture-bench-") as directory:
        laptop = lab.machine("laptop")
        with Registry(laptop, 5001) as registry:
            containers.push_all(registry, laptop.settings)
            repository = f"posture-{uuid.uuid4().hex[:8]}"
            builder = Builder(lab, Path(directory), variables_for(registry, repository))
            first, second = builder.build(), builder.build()
            with (builder.checkout / "analyzer/posture_analyzer/cli.py").open("a") as source:
                source.write(f"# {uuid.uuid4()}\n")
            changed = builder.build()
            rows: list[dict[str, Any]] = [
                {"measured": "build.yml, nothing there yet, s", "value": first.seconds},
                {"measured": "build.yml, nothing changed, s", "value": second.seconds},
                {"measured": "build.yml, our own code changed, s", "value": changed.seconds},
            ]
            for target, name in (("analyzer", repository), ("offloader", f"{repository}-offloader")):
                for platform, image in registry.images(name).items():
                    packed = sum(layer["size"] for layer in image["layers"][1:])
                    rows.append({"measured": f"{target} for {platform}, to fetch, MB", "value": packed / 1e6})
                script = "du --summarize --apparent-size --block-size=100000 --total /opt | tail --lines=1"
                answer = laptop.ssh("docker", "run", "--rm", builder.recorded[target], "sh", "-c", script, timeout=200)
                rows.append({"measured": f"{target} unpacked, MB", "value": int(answer.split()[0]) / 10})
            compose = Compose(laptop, registry, builder.checkout)
            try:
                compose.run("up --detach --wait --wait-timeout 120 --quiet-pull", timeout=300)
                starts = []
                for _ in range(_ROUNDS):
                    with compose.analyzer(builder.recorded["analyzer"]) as seconds:
                        starts.append(seconds)
            finally:
                compose.remove()
            rows.append({"measured": "container start -> ready, median, s", "value": statistics.median(starts)})
            rows.append({"measured": "container start -> ready, slowest, s", "value": max(starts)})
            builder.clean()
    return rows


@contextmanager
def _lab() -> Iterator[Lab]:
    lab = Lab(from_environment())
    found = lab.is_up
    try:
        lab.up(["laptop"])
        yield lab
    finally:
        if not found:
            lab.down()


if __name__ == "__main__":
    main()
