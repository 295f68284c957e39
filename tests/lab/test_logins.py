"""The broker's limit of logins, in the kernel: between two network namespaces, one for the broker and one for a Pi."""

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from tests.support.limits import ROLE, rendered
from tests.support.waiting import wait_until

BROKER, PI = "10.179.0.1", "10.179.0.2"
LOGINS = 20

_SERVER = """
import socket
server = socket.create_server(("0.0.0.0", 1883), backlog=1000)
print("listening", flush=True)
while True:
    server.accept()[0].close()
"""
_CLIENT = """
import socket, sys
taken = 0
for _ in range(int(sys.argv[2])):
    try:
        socket.create_connection((sys.argv[1], 1883), timeout=0.01).close()
        taken += 1
    except OSError:
        pass
print(taken)
"""


def run(*command: str, stdin: str = "") -> str:
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True, timeout=60).stdout


def inside(namespace: str, *command: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{namespace}", *command]


def connections(namespace: str, address: str, count: int) -> int:
    return int(run(*inside(namespace, sys.executable, "-c", _CLIENT, address, str(count))))


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two namespaces with a cable between them, and something that listens in the first."""
    mark = uuid.uuid4().hex[:6]
    broker, pi = f"posture-b-{mark}", f"posture-p-{mark}"
    try:
        for name in (broker, pi):
            run("ip", "netns", "add", name)
            run(*inside(name, "ip", "link", "set", "lo", "up"))
        run(*inside(broker, "ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", pi))
        for name, address in ((broker, BROKER), (pi, PI)):
            run(*inside(name, "ip", "address", "add", f"{address}/24", "dev", "cable"))
            run(*inside(name, "ip", "link", "set", "cable", "up"))
        with subprocess.Popen(
            inside(broker, sys.executable, "-c", _SERVER), stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout
            assert server.stdout.readline() == "listening\n"
            yield broker, pi
            server.kill()
    finally:
        for name in (broker, pi):
            subprocess.run(["ip", "netns", "delete", name], check=False)


def test_an_address_that_opens_connections_without_end_is_slowed_down(namespaces: tuple[str, str]) -> None:
    broker, pi = namespaces
    assert connections(pi, BROKER, 300) == 300
    values = {"__broker_unit": "posture-broker", "__broker_ports": [1883, 1884]}
    rules = rendered((ROLE / "templates/logins.nft.j2").read_text(), values | {"broker_logins_max": LOGINS})
    for _ in range(2):  # the second time as after a crash: the table is there
        run(*inside(broker, "nft", "-f", "-"), stdin=rules)
    assert 10 * LOGINS <= connections(pi, BROKER, 600) <= 16 * LOGINS
    assert connections(broker, "127.0.0.1", 600) == 600, "loopback is not limited"
    wait_until(lambda: connections(pi, BROKER, 1) == 1, timeout=10, describe="the address is let in again")
    run(*inside(broker, "nft", "delete", "table", "inet", "posture-broker"))
    assert connections(pi, BROKER, 300) == 300
