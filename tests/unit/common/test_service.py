"""Stop, delays, and the status server; signals end a process of their own."""

import itertools
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from posture_common.service import LastingError, Stop, delays, status_server

SERVICE = """
from posture_common.service import set_up_logging, stop_on_signals
set_up_logging("INFO")
stop = stop_on_signals()
print("running", flush=True)
stop.wait()
print("stopping", flush=True)
{}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_delays_double_up_to_the_longest() -> None:
    assert list(itertools.islice(delays(1, 5), 6)) == [1, 2, 4, 5, 5, 5]


def test_a_stop_calls_whoever_waits() -> None:
    stop, called = Stop(), []
    with stop.calling(lambda: called.append("inside")):
        assert not stop.requested
        assert not stop.wait(0)
        stop.request()
    assert called == ["inside"]
    assert stop.requested
    assert stop.wait()


def test_a_stop_that_was_requested_calls_at_once() -> None:
    stop, called = Stop(), []
    stop.request()
    with stop.calling(lambda: called.append("late")):
        assert called == ["late"]


def test_a_stop_forgets_whoever_has_left() -> None:
    stop, called = Stop(), []
    with stop.calling(lambda: called.append("left")):
        pass
    stop.request()
    assert called == []


def test_a_stop_wakes_a_sleeper() -> None:
    stop = Stop()
    timer = threading.Timer(0.05, stop.request)
    timer.start()
    assert stop.wait(30)
    timer.join()


def test_the_first_signal_stops_and_a_second_ends_at_once() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(
            [sys.executable, "-c", SERVICE.format("")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            process.send_signal(number)
            output, log = process.communicate(timeout=20)
            assert (output, process.returncode) == ("stopping\n", 0)
            assert f"{number.name}: stopping" in log


def test_a_second_signal_ends_a_service_that_hangs() -> None:
    hanging = SERVICE.format("import time; time.sleep(60)")
    with subprocess.Popen(
        [sys.executable, "-c", hanging], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 1


def test_the_status_server_answers_and_ends() -> None:
    troubles: dict[str, str | None] = {"alive": None, "ready": "warming up"}
    port = free_port()
    with status_server("127.0.0.1", port, alive=lambda: troubles["alive"], ready=lambda: troubles["ready"]):
        assert get(port, "/healthz") == (200, "ok\n")
        assert get(port, "/readyz") == (503, "warming up\n")
        troubles.update(alive="worker-1 hangs", ready=None)
        assert get(port, "/healthz") == (503, "worker-1 hangs\n")
        assert get(port, "/readyz") == (200, "ok\n")
        assert "python_info" in get(port, "/metrics")[1]
        assert get(port, "/")[0] == 404
    with pytest.raises(urllib.error.URLError):
        get(port, "/healthz")


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(LastingError, match=rf"127\.0\.0\.1:{port} .*in use; .*POSTURE_HTTP_PORT"),
            status_server("127.0.0.1", port, alive=lambda: None, ready=lambda: None),
        ):
            pass
