"""The five machines: what they are, how they are reached, what they reach, and what unplugging does."""

import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.settings import FIVE, KINDS
from tests.lab.tools import LabError
from tests.support.waiting import wait_until

_CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", FIVE)
def test_has_its_own_systemd_architecture_and_disk(lab: Lab, name: str) -> None:
    machine = lab.machine(name)
    state = wait_until(
        lambda: machine.shell("systemctl is-system-running || true").strip().replace("starting", ""),
        timeout=60,
        describe=f"{name} has finished its start",
    )
    assert state == "running", machine.shell("systemctl --failed --no-legend")
    assert machine.ssh("cat", "/proc/1/comm").strip() == "systemd"
    assert machine.ssh("uname", "-m").strip() == KINDS[name].architecture
    assert machine.ssh("hostname").strip() == name


def test_ansible_reaches_them_by_the_inventory_that_users_copy(lab: Lab) -> None:
    ansible = Path(sys.executable).with_name("ansible")
    inventories = ("-i", f"{_CHECKOUT}/inventory/lab", "-i", str(lab.inventory))
    facts = "gather_subset=!all,!min,service_mgr"
    command = [str(ansible), *inventories, ",".join(FIVE), "-m", "ansible.builtin.setup", "-a", facts, "-o"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=_CHECKOUT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(FIVE)
    assert all('"ansible_service_mgr": "systemd"' in line for line in lines)


def test_the_host_reaches_a_machines_web_page(lab: Lab) -> None:
    machine = lab.machine("pi1")
    machine.shell("systemd-run --quiet --unit=page -p WorkingDirectory=/etc/apt python3 -m http.server 8000")
    try:
        url = f"http://{machine.address}:8000/sources.list"
        wait_until(lambda: _answers(machine.address, 8000), timeout=20, describe="the page is served")
        with urllib.request.urlopen(url, timeout=5) as page:
            assert b"bookworm" in page.read()
    finally:
        machine.ssh("systemctl", "stop", "page")


def test_machines_reach_the_package_registries_and_nothing_of_this_computer(lab: Lab) -> None:
    machine = lab.machine("pi1")
    assert "InRelease" in machine.ssh("apt-get", "update", timeout=100)
    with _page(str(lab.settings.uplink[1])) as port:
        assert _answers(str(lab.settings.uplink[1]), port)
        with pytest.raises(LabError, match=r"refused|unreachable"):
            machine.ssh("bash", "-c", f"echo >/dev/tcp/{lab.settings.uplink[1]}/{port}", timeout=20)


def test_machines_reach_each_other(lab: Lab) -> None:
    for name in FIVE:
        lab.machine("pi2").ssh("bash", "-c", f"echo >/dev/tcp/{lab.machine(name).address}/22", timeout=20)


def test_a_disk_lasts_through_a_power_cut(lab: Lab) -> None:
    machine = lab.machine("pi1")
    boot = machine.booted_at()
    machine.ssh("tee", "/root/kept", stdin="through the cut")
    lab.power_off("pi1")
    try:
        assert not machine.is_on
        assert not _answers(machine.address, 22)
    finally:
        lab.power_on("pi1")
    assert machine.ssh("cat", "/root/kept") == "through the cut"
    assert machine.booted_at() != boot
    with pytest.raises(LabError, match="No such file"):
        lab.machine("pi2").ssh("cat", "/root/kept")


def test_a_machine_reboots_and_stays_off_when_it_is_shut_down(lab: Lab) -> None:
    machine = lab.machine("pi1")
    boot = machine.booted_at()
    machine.shell("systemctl reboot")
    wait_until(lambda: machine.booted_at() not in {boot, ""}, timeout=30, describe="it is back")
    machine.shell("systemctl poweroff")
    wait_until(lambda: not machine.is_on, timeout=30, describe="it is off")
    assert "off" in next(line for line in lab.status().splitlines() if line.startswith("pi1 "))
    lab.power_on("pi1")
    assert machine.ssh("hostname").strip() == "pi1"


def test_a_cable_is_pulled_and_plugged_in_again(lab: Lab) -> None:
    machine = lab.machine("pi1")
    lab.set_link("pi1", up=False)
    try:
        assert not _answers(machine.address, 22)
        line = next(line for line in lab.status().splitlines() if line.startswith("pi1 "))
        assert line.split()[3:5] == ["on", "down"]
    finally:
        lab.set_link("pi1", up=True)
    wait_until(lambda: _answers(machine.address, 22), timeout=10, describe="pi1 answers again")


def test_a_machine_that_is_not_there_is_named(lab: Lab) -> None:
    with pytest.raises(LabError, match="there is no machine pi9 in the lab; there are nuc, agx, orin, pi1, pi2"):
        lab.machine("pi9")


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def _page(address: str) -> Iterator[int]:
    """Serve something on an address of this computer and return the port."""
    with HTTPServer((address, 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
