"""The Jetson exporter on a fake sysfs, as the process that a board runs."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.crowds import assert_answers, crowd
from tests.support.waiting import free_port, wait_until

SCRIPT = Path(__file__).parents[3] / "roles/exporter/files/posture_jetson_exporter.py"
OTHER, ORIN = "jetson_gpu_usage_percent", "jetson_orin_gpu_load_percent"

spec = importlib.util.spec_from_file_location("posture_jetson_exporter", SCRIPT)
assert spec is not None
assert spec.loader is not None
exporter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exporter)

# board, its device tree's model, the device with the load file, links to that device, the metric's name
BOARDS = {
    "tk1": ("NVIDIA Tegra124 Jetson TK1", "devices/platform/host1x/gk20a.0", [], OTHER),
    "nano": ("NVIDIA Jetson Nano Developer Kit", "devices/57000000.gpu", ["devices/gpu.0"], OTHER),
    "tx1": ("jetson_tx1", "devices/platform/host1x/57000000.gpu", [], OTHER),
    "tx2": ("quill", "devices/17000000.gp10b", ["devices/gpu.0"], OTHER),
    "agx-xavier": ("Jetson-AGX", "devices/17000000.gv11b", ["devices/gpu.0", "devices/platform/gpu.0"], OTHER),
    "xavier-nx": ("NVIDIA Jetson Xavier NX Developer Kit", "devices/17000000.gv11b", ["devices/platform/gpu.0"], OTHER),
    "agx-orin-5": ("NVIDIA Jetson AGX Orin Developer Kit", "devices/17000000.ga10b", ["devices/platform/gpu.0"], OTHER),
    "agx-orin-6": ("NVIDIA Jetson AGX Orin Developer Kit", "devices/platform/bus@0/17000000.gpu", [], OTHER),
    "orin-nx": ("NVIDIA Orin NX Developer Kit", "devices/platform/17000000.ga10b", ["devices/platform/gpu.0"], ORIN),
    "orin-nano": ("NVIDIA Jetson Orin Nano Developer Kit", "devices/platform/17000000.gpu", [], ORIN),
    "orin-nano-6": ("NVIDIA Jetson Orin Nano Engineering Reference", "devices/platform/bus@0/17000000.gpu", [], ORIN),
    "devfreq-only": ("NVIDIA Orin Nano", "elsewhere", ["class/devfreq/17000000.ga10b/device"], ORIN),
    "thor": ("NVIDIA Jetson AGX Thor Developer Kit", "elsewhere", ["class/devfreq/gpu-gpc-0/device"], OTHER),
}


class Board:
    """A fake board: a sysfs and a device tree in a directory, and the exporter that reads them."""

    def __init__(self, directory: Path, device: str = "devices/gpu.0", links: tuple[str, ...] = ()) -> None:
        self.sysfs, self.device_tree = directory / "sys", directory / "device-tree"
        self.load = self.sysfs / device / "load"
        self.load.parent.mkdir(parents=True)
        self.device_tree.mkdir()
        for link in links:
            (self.sysfs / link).parent.mkdir(parents=True, exist_ok=True)
            (self.sysfs / link).symlink_to(self.load.parent)
        self.log = directory / "log"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def model(self, text: str) -> None:
        (self.device_tree / "model").write_bytes(text.encode() + b"\0")

    @contextmanager
    def exporter(self, *arguments: str, wrapper: Iterable[str] = ()) -> Iterator[None]:
        """Run the program until the block ends."""
        roots = [f"--sysfs-root={self.sysfs}", f"--device-tree={self.device_tree}"]
        command = [*wrapper, sys.executable, str(SCRIPT), f"--listen={self.address}", *roots, *arguments]
        with self.log.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                wait_until(lambda: "on http" in self.log.read_text(), timeout=20, describe=self.log.read_text)
                yield
            finally:
                process.terminate()

    def get(self, path: str = "/metrics") -> str:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
        return text


def _samples(page: str) -> dict[str, float]:
    """Return the samples of a page in Prometheus' text format; anything else fails."""
    samples = {}
    for line in page.splitlines():
        if not line.startswith("# "):
            sample = re.fullmatch(r'([a-z_]+(?:\{[a-z]+="[^"\n]*"\})?) ([0-9.]+)', line)
            assert sample, line
            samples[sample[1]] = float(sample[2])
    return samples


def _page(sysfs: Path, model: str = "") -> str:
    page: str = exporter.Exporter(sysfs, name=exporter.metric_name(model), model=model).page()
    return page


@pytest.mark.parametrize("name", BOARDS)
def test_each_board_has_its_load_under_its_name(name: str, tmp_path: Path) -> None:
    model, device, links, metric = BOARDS[name]
    board = Board(tmp_path, device, tuple(links))
    board.load.write_text("523\n")
    assert _samples(_page(board.sysfs, model)) == {
        f'posture_jetson_exporter_info{{model="{model}"}}': 1,
        "posture_jetson_exporter_up": 1,
        metric: 52.3,
    }


@pytest.mark.parametrize(("permille", "percent"), [("0", 0), ("1\n", 0.1), ("999", 99.9), ("1000\n", 100)])
def test_permille_become_percent(permille: str, percent: float, tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.load.write_text(permille)
    assert _samples(_page(board.sysfs))[OTHER] == percent


def test_a_read_that_fails_in_an_unknown_way_does_not_repeat_the_last_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(tmp_path)
    board.load.write_text("500")
    running = exporter.Exporter(board.sysfs, name=OTHER, model="")
    assert _samples(running.page())[OTHER] == 50
    monkeypatch.setattr(exporter.threading, "excepthook", lambda _: None)
    monkeypatch.setattr(exporter, "find_load_file", lambda _: 1 / 0)
    assert "posture_jetson_exporter_up 0" in running.page()
    assert OTHER not in running.page()


@pytest.mark.parametrize("content", ["", "-1", "1001", "52.3", 5000 * "9", "nan", "busy", "1 2", "\u0661", "\xff"])
def test_a_value_that_is_none_has_no_sample(content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    board = Board(tmp_path)
    board.load.write_text(content, encoding="utf-8")
    with caplog.at_level("INFO"):
        page = _page(board.sysfs)
    assert "posture_jetson_exporter_up 0" in page
    assert "percent" not in page
    assert str(board.load) in caplog.text


def test_other_devices_are_not_the_gpu(tmp_path: Path) -> None:
    board = Board(tmp_path, "class/devfreq/15340000.vic/device")
    board.load.write_text("700")
    assert "percent" not in _page(board.sysfs)


def test_without_a_load_file_the_log_says_where_it_looked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        page = _page(tmp_path)
    assert "percent" not in page
    assert "posture_jetson_exporter_up 0" in page
    assert str(tmp_path) in caplog.text
    assert "devices/gpu.0/load" in caplog.text


def test_a_file_that_is_a_directory_has_no_sample(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.load.mkdir()
    assert "percent" not in _page(board.sysfs)


def test_the_same_failure_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    board = Board(tmp_path)
    board.load.write_text("busy")
    served = exporter.Exporter(board.sysfs, name=OTHER, model="")
    with caplog.at_level("INFO"):
        for content in ("busy", "busy", "busy", "10", "10", "busy"):
            board.load.write_text(content)
            served.page()
    assert [("busy" in message) for message in caplog.messages] == [True, False, True]


def test_a_model_cannot_break_the_page(tmp_path: Path) -> None:
    assert _page(tmp_path, 'a "b" \\ \n c').splitlines()[0] == (
        r'posture_jetson_exporter_info{model="a \"b\" \\   c"} 1'
    )


def test_serves_what_the_file_holds_now(tmp_path: Path) -> None:
    board = Board(tmp_path, "devices/platform/17000000.gpu")
    board.model("NVIDIA Jetson Orin Nano Developer Kit")
    with board.exporter():
        assert "percent" not in board.get()  # as early in the boot, before the driver
        for permille in (0, 370, 1000):
            board.load.write_text(f"{permille}\n")
            assert _samples(board.get())[ORIN] == permille / 10
        with pytest.raises(urllib.error.HTTPError, match="404"):
            board.get("/")
    assert ORIN in board.log.read_text().splitlines()[0]


@pytest.mark.parametrize(("board_option", "metric"), [("orin", ORIN), ("other", OTHER)])
def test_the_board_can_be_told(board_option: str, metric: str, tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.load.write_text("10")
    with board.exporter(f"--board={board_option}"):
        assert _samples(board.get())[metric] == 1


def test_a_file_that_hangs_costs_no_scrape(tmp_path: Path) -> None:
    board = Board(tmp_path)
    os.mkfifo(board.load)  # nobody writes: whoever opens it waits
    with board.exporter():
        for _ in range(3):
            assert "percent" not in board.get()
        assert f"{board.load} cannot be read: no answer" in board.log.read_text()
        board.load.rename(tmp_path / "fifo")
        board.load.write_text("420")
        with (tmp_path / "fifo").open("w") as writer:
            writer.write("1")
        wait_until(lambda: _samples(board.get()).get(OTHER) == 42, timeout=10, describe=board.log.read_text)


def test_silent_and_slow_connections_keep_no_scrape_out(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.load.write_text("420")
    with board.exporter(wrapper=["prlimit", "--nofile=1024:1024"]), crowd(board.port):
        for _ in range(5):
            assert_answers(board.port, "/metrics")
        assert _samples(board.get())[OTHER] == 42


def test_a_connection_ends_although_it_goes_on_talking(tmp_path: Path) -> None:
    board = Board(tmp_path)
    with board.exporter(), socket.create_connection(("127.0.0.1", board.port)) as connection:
        connection.settimeout(0.2)

        def ended() -> bool:
            try:
                connection.sendall(b"a")
                return connection.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(ended, timeout=30, describe="the exporter closes the connection")


@pytest.mark.parametrize(
    "request_", [b"\r\n\r\n", b"\xff\0\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n", 20_000 * b"a", b"GET /metr"]
)
def test_an_odd_request_ends_nothing(request_: bytes, tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.load.write_text("420")
    with board.exporter():
        with socket.create_connection(("127.0.0.1", board.port), timeout=5) as connection, suppress(ConnectionError):
            connection.sendall(request_)
            connection.shutdown(socket.SHUT_WR)
            assert b"420" not in connection.makefile("rb").read()
        assert _samples(board.get())[OTHER] == 42
    assert "Traceback" not in board.log.read_text()


def test_a_file_that_may_not_be_read_has_no_sample(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.load.write_text("420")
    board.load.chmod(0)
    # root reads everything; without its capabilities it does not
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    with board.exporter(wrapper=unprivileged):
        page = board.get()
    assert "posture_jetson_exporter_up 0" in page
    assert "percent" not in page
    assert f"{board.load} cannot be read: [Errno 13]" in board.log.read_text()


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    board = Board(tmp_path)
    with board.exporter():
        command = [sys.executable, str(SCRIPT), f"--listen={board.address}"]
        again = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert again.returncode == 78
    assert "cannot listen on 127.0.0.1:" in again.stderr
    assert again.stderr.count("\n") == 1
