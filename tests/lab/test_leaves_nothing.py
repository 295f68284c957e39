"""A lab leaves this computer as it found it, also when its run is killed; it gets in nobody's way.

These bring up a second lab, with another name and other addresses, beside the one that the other tests share.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.lab import host
from tests.lab.lab import Lab
from tests.lab.settings import FIVE, Settings, from_environment
from tests.lab.tools import LabError, run
from tests.lab.traces import traces
from tests.support.waiting import wait_until

_CHECKOUT = Path(__file__).parents[2]
_NAME = "lab2"


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Lab]:
    """A lab that is not up, and whose traces are compared with those before when the test is over."""
    settings = replace(
        from_environment(),
        name=_NAME,
        state=tmp_path / "lab",
        subnet=IPv4Network("10.177.0.0/24"),
        uplink=IPv4Network("10.178.0.0/30"),
    )
    before = traces(_NAME)
    lab = Lab(settings)
    yield lab
    lab.down()
    assert _difference(before, traces(_NAME)) == {}
    assert not settings.state.exists()


def test_what_labs_share_on_this_computer_goes_with_the_last_of_them(tmp_path: Path) -> None:
    one, two = (
        Settings(name=name, state=tmp_path / name, uplink=IPv4Network(uplink))
        for name, uplink in (("one", "10.178.1.0/30"), ("two", "10.178.2.0/30"))
    )
    before = traces("one")
    host.prepare(one)
    host.prepare(two)
    shared = traces("one")
    host.restore(one)
    assert _difference(shared, traces("one")).keys() == {"iptables rules"}
    host.restore(two)
    assert _difference(before, traces("one")) == {}


@pytest.mark.timeout(400)
def test_three_ups_and_downs_in_a_row(second: Lab) -> None:
    for _ in range(3):
        before = traces(_NAME)
        second.up()
        assert _difference(before, traces(_NAME)).keys() >= {"processes", "network namespaces", "links", "mounts"}
        second.down()
        assert _difference(before, traces(_NAME)) == {}


# How far `up` is when it is killed.
_STAGES: dict[str, Callable[[Lab], bool]] = {
    "it has begun": lambda lab: (lab.settings.state / "lab.json").exists(),
    "a machine has a disk": lambda lab: bool(lab.machines()),
    "a machine is on": lambda lab: any(machine.is_on for machine in lab.machines()),
    "all machines are on": lambda lab: sum(machine.is_on for machine in lab.machines()) == len(FIVE),
}


@pytest.mark.timeout(200)
@pytest.mark.parametrize("stage", _STAGES)
def test_a_killed_run_is_cleared_by_the_next_down(second: Lab, stage: str) -> None:
    _kill_up(second, stage)


@pytest.mark.timeout(200)
def test_a_killed_run_is_cleared_by_the_next_up(second: Lab) -> None:
    _kill_up(second, "a machine is on")
    second.up(["pi1"])
    assert [machine.name for machine in second.machines()] == ["pi1"]
    assert second.machine("pi1").ssh("hostname").strip() == "pi1"


def test_a_lab_that_is_up_is_left_as_it_is(second: Lab) -> None:
    second.up(["pi1"])
    second.machine("pi1").ssh("touch", "/root/kept")
    second.up(["pi1"])
    second.machine("pi1").ssh("ls", "/root/kept")


def test_a_machine_joins_on_demand(second: Lab) -> None:
    second.up(["pi1"])
    second.power_on("fresh")
    fresh = second.machine("fresh")
    assert fresh.shell("git --version && make --version && sudo true")
    assert not fresh.shell("command -v python3 || true")
    with pytest.raises(LabError, match="the nodes of a cluster come up together, with nuc"):
        second.power_on("agx")


def test_down_is_content_with_nothing(second: Lab) -> None:
    second.down()
    assert second.status().startswith("There is no lab")


def test_two_commands_do_not_change_a_lab_at_once(second: Lab) -> None:
    second.up(["pi1"])
    code = "import time; from tests.lab.record import alone; from tests.lab.settings import from_environment as s\n"
    code += "with alone(s()): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=_environment(second.settings), cwd=_CHECKOUT, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout
            holder.stdout.readline()
            with pytest.raises(LabError, match="another command changes the lab"):
                second.power_off("pi1")
        finally:
            holder.kill()


def test_a_namespace_of_that_name_is_a_clash(second: Lab) -> None:
    run("ip", "netns", "add", f"{_NAME}-agx")
    try:
        with pytest.raises(LabError, match=rf"there is a network namespace {_NAME}-agx.*POSTURE_LAB_NAME"):
            second.up()
        second.down()
        assert f"{_NAME}-agx" in run("ip", "netns", "list")
    finally:
        run("ip", "netns", "del", f"{_NAME}-agx")


def test_a_subnet_that_is_routed_elsewhere_is_a_clash(second: Lab) -> None:
    run("ip", "route", "add", "10.177.0.128/25", "dev", "lo")
    try:
        with pytest.raises(LabError, match=r"10\.177\.0\.0/24 overlaps the route to 10\.177\.0\.128/25 by lo"):
            second.up()
    finally:
        run("ip", "route", "del", "10.177.0.128/25", "dev", "lo")


def test_a_state_directory_of_somebody_else_is_left_alone(second: Lab) -> None:
    second.settings.state.mkdir()
    (second.settings.state / "thesis").write_text("years of work")
    with pytest.raises(LabError, match="is not a lab's"):
        second.up(["pi1"])
    with pytest.raises(LabError, match="is not a lab's"):
        second.down()
    assert (second.settings.state / "thesis").read_text() == "years of work"
    (second.settings.state / "thesis").unlink()


def test_says_at_once_that_it_needs_root(second: Lab) -> None:
    # Not another user, who might not be let into the checkout.
    command = ["unshare", "--user", "--map-user=1000", sys.executable, "-m", "tests.lab", "up"]
    begin = time.monotonic()
    done = subprocess.run(
        command, env=_environment(second.settings), cwd=_CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("lab: the lab needs root"), done.stderr
    assert time.monotonic() - begin < 5


def test_says_at_once_what_to_install(second: Lab, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("ip", "unshare"):
        (tools / name).symlink_to(run("which", name).strip())
    environment = _environment(second.settings) | {"PATH": str(tools)}
    command = [sys.executable, "-m", "tests.lab", "up"]
    done = subprocess.run(command, env=environment, cwd=_CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "apt-get install -y debootstrap iptables" in done.stderr
    assert "systemd-container" in done.stderr


def _kill_up(lab: Lab, stage: str) -> None:
    """Start `up` and SIGKILL it at a stage, together with nothing else."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.lab", "up"],
        env=_environment(lab.settings),
        cwd=_CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: _STAGES[stage](lab), timeout=60, describe=stage)
        process.send_signal(signal.SIGKILL)
    assert not lab.is_up


def _environment(settings: Settings) -> dict[str, str]:
    return os.environ | {
        "POSTURE_LAB_NAME": settings.name,
        "POSTURE_LAB_STATE": str(settings.state),
        "POSTURE_LAB_SUBNET": str(settings.subnet),
        "POSTURE_LAB_UPLINK": str(settings.uplink),
    }


def _difference(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, tuple[list[str], list[str]]]:
    """Return, by kind, what has gone and what has come."""
    return {
        kind: (sorted(set(before[kind]) - set(after[kind])), sorted(set(after[kind]) - set(before[kind])))
        for kind in before
        if before[kind] != after[kind]
    }
