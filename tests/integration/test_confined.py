"""The programs do their work under the system call filters of their units, as the kernel enforces them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.support import programs
from tests.support.brokers import Broker
from tests.support.confined import command
from tests.support.databases import Database
from tests.support.images import shots
from tests.support.programs import Program
from tests.support.prometheus import find_binary
from tests.support.units import ROLES, directives, render
from tests.support.waiting import accepts, free_port, wait_until

Run = Callable[[Program], Program]
EXPORTER = ROLES / "exporter/files/posture_jetson_exporter.py"


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return render(tmp_path_factory.mktemp("units"))


@pytest.mark.parametrize(
    "attempt",
    [
        "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "import os; os.chown('/proc/self', 1, 1)",
        "import ctypes, os; ctypes.CDLL(None, use_errno=True).unshare(1 << 28); raise OSError(ctypes.get_errno(), '')",
    ],
    ids=["makes code", "gives a file away", "makes a namespace"],
)
def test_what_no_service_needs_is_refused(units: dict[str, Path], attempt: str) -> None:
    words = command(units["posture-analyzer"], sys.executable, "-c", attempt)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr, done.stderr


def test_an_image_becomes_a_row_and_a_decoder_that_died_another(
    units: dict[str, Path], broker: Broker, database: Database, tmp_path: Path, run: Run
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    first, second = shots(2)
    (source / first.filename).write_bytes(first.data)
    analyzer = run(
        programs.analyzer(
            broker, database, tmp_path, wrapper=command(units["posture-analyzer"]), WORKERS="2", PASSES="2"
        )
    )
    run(
        programs.publisher(
            broker, tmp_path, pi_id="pi1", source=source, wrapper=command(units["posture-publisher-directory"])
        )
    )
    wait_until(lambda: database.count() == 1, timeout=60, describe=lambda: f"a row: {analyzer.output[-2000:]}")
    tasks = len(list(Path(f"/proc/{analyzer.process.pid}/task").iterdir()))
    assert 2 * tasks < int(directives(units["posture-analyzer"])["TasksMax"][0])
    for decoder in _children(analyzer.process.pid):
        os.kill(decoder, signal.SIGKILL)
    (source / second.filename).write_bytes(second.data)
    wait_until(lambda: database.count() == 2, timeout=60, describe=lambda: f"a row: {analyzer.output[-2000:]}")
    assert len(list((tmp_path / "images").rglob("*.jpg"))) == 2
    assert "was killed" in analyzer.output
    assert analyzer.terminate() == 0


@pytest.mark.parametrize("service", ["broker", "metrics", "node_exporter", "exporter"])
def test_a_server_serves(units: dict[str, Path], tmp_path: Path, service: str) -> None:
    port = free_port()
    (tmp_path / "prometheus.yml").write_text("{}")
    # It would change its user where root starts it, which the unit has done before.
    (tmp_path / "mosquitto.conf").write_text(f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\n")
    listen = f"--web.listen-address=127.0.0.1:{port}"
    servers: dict[str, list[str | Path]] = {
        "broker": [find_binary("mosquitto"), "-c", tmp_path / "mosquitto.conf"],
        "metrics": [
            find_binary("prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            listen,
        ],
        "node_exporter": [find_binary("prometheus-node-exporter"), listen],
        "exporter": [sys.executable, EXPORTER, f"--listen=127.0.0.1:{port}"],
    }
    with ExitStack() as stack, (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command(units[f"posture-{service}"], *servers[service]), stdout=log, stderr=log)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        wait_until(
            lambda: server.poll() is not None or accepts(port),
            timeout=30,
            describe=lambda: (tmp_path / "log").read_text(),
        )
        assert server.poll() is None, (tmp_path / "log").read_text()
        if service != "broker":
            answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=20)
            assert answer.ok
            assert service != "node_exporter" or "node_cpu_seconds_total" in answer.text


def _children(pid: int) -> list[int]:
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
