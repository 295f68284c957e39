"""Stop, delays, and the status server; signals end a process of their own."""

import itertools
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from posture_common import service
from posture_common.service import LastingError, Stop, delays, status_server

from tests.support.crowds import assert_answers, crowd
from tests.support.waiting import free_port, wait_until

SERVICE = """
from posture_common.service import set_up_logging, stop_on_signals
set_up_logging("INFO")
stop = stop_on_signals()
print("running", flush=True)
stop.wait()
print("stopping", flush=True)
{}
"""


SERVER = """
import sys
from posture_common.service import status_server, stop_on_signals
stop = stop_on_signals()
with status_server("127.0.0.1", int(sys.argv[1]), alive=lambda: None, ready=lambda: None):
    print("serving", flush=True)
    stop.wait()
"""


def resident_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def answer(port: int, request: bytes) -> bytes:
    """Return what comes back before the server closes or resets the connection."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, suppress(ConnectionError):
        connection.sendall(request)
        while some := connection.recv(65536):
            received += some
    return received


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


def test_a_note_stands_behind_the_ok_of_readyz() -> None:
    port, troubles, notes = free_port(), [""], ["2 rows do not fit"]

    def first(words: list[str]) -> str | None:
        return words[0] or None

    with status_server("127.0.0.1", port, alive=lambda: None, ready=lambda: first(troubles), note=lambda: first(notes)):
        assert get(port, "/readyz") == (200, "ok; 2 rows do not fit\n")
        assert get(port, "/healthz") == (200, "ok\n")
        troubles[0] = "the broker is away"
        assert get(port, "/readyz") == (503, "the broker is away\n")
        troubles[0] = notes[0] = ""
        assert get(port, "/readyz") == (200, "ok\n")


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")])  # noqa: S104
def test_every_kind_of_address_is_served(host: str, reached: str) -> None:
    port = free_port()
    with (
        status_server(host, port, alive=lambda: None, ready=lambda: None),
        socket.create_connection((reached, port), timeout=5) as connection,
    ):
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").read().endswith(b"\r\n\r\nok\n")


def test_requests_in_a_row_get_one_answer_at_most() -> None:
    port = free_port()
    with status_server("127.0.0.1", port, alive=lambda: None, ready=lambda: None):
        assert answer(port, 300 * b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").count(b"HTTP/1.1") <= 1
        assert get(port, "/healthz") == (200, "ok\n")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET http://[x HTTP/1.1\r\n\r\n",
        b"\0\xff\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ],
)
def test_an_odd_request_costs_neither_the_server_nor_a_line_of_the_log(
    request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    with caplog.at_level("INFO"), status_server("127.0.0.1", port, alive=lambda: None, ready=lambda: None):
        assert b" 200 " not in answer(port, request_)
        assert get(port, "/healthz") == (200, "ok\n")
    assert caplog.records == []


@pytest.mark.parametrize("beyond", [b"X: " + 10_000 * b"a", b"Content-Length: 10000000"])
def test_a_request_beyond_reason_is_refused(beyond: bytes) -> None:
    port = free_port()
    with status_server("127.0.0.1", port, alive=lambda: None, ready=lambda: None):
        assert b" 200 " not in answer(port, b"GET /healthz HTTP/1.1\r\n" + beyond + b"\r\n\r\n")
        assert get(port, "/healthz") == (200, "ok\n")


def test_a_connection_ends_although_it_goes_on_talking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CONNECTION_S", 1.0)
    port = free_port()
    with (
        status_server("127.0.0.1", port, alive=lambda: None, ready=lambda: None),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        connection.settimeout(0.1)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")

        def ended() -> bool:
            try:
                connection.sendall(b"a")
                return connection.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(ended, timeout=20, describe="the server closes the connection")


def test_silent_and_slow_connections_keep_no_probe_out() -> None:
    port = free_port()
    serving = ["prlimit", "--nofile=1024:1024", sys.executable, "-c", SERVER, str(port)]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        at_rest = resident_mb(process.pid)
        with crowd(port):
            for path in ("/healthz", "/readyz", "/metrics") * 5:
                assert_answers(port, path)
            assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 200, "files that the program needs itself"
            assert resident_mb(process.pid) < at_rest + 20
            process.terminate()
            assert process.wait(timeout=5) == 0


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(LastingError, match=rf"127\.0\.0\.1:{port} .*in use; .*POSTURE_HTTP_PORT"),
            status_server("127.0.0.1", port, alive=lambda: None, ready=lambda: None),
        ):
            pass
