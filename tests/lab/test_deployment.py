"""The collection on the lab's five machines, over ssh: up, again, killed services, reboots."""

import pytest

from tests.lab.deployment import Deployment
from tests.lab.load import set_load
from tests.lab.machine import CAMERA
from tests.lab.observed import agree, loads
from tests.lab.settings import CONTROL, FIVE
from tests.lab.tools import LabError
from tests.support.waiting import wait_until

_PIS = ("pi1", "pi2")


@pytest.mark.timeout(600)
def test_a_second_run_changes_nothing(deployment: Deployment) -> None:
    assert deployment.play("up").changed == dict.fromkeys([*FIVE, "localhost"], 0)


def test_rows_of_both_pis_arrive_from_home(deployment: Deployment) -> None:
    wait_until(lambda: set(deployment.rows()) == set(_PIS), timeout=90, describe="both Pis have rows", pause=1)
    assert deployment.query("SELECT json_agg(DISTINCT processed_by) FROM posture_results") == [CONTROL]


def test_a_nodes_load_reaches_the_prometheus_that_up_made(deployment: Deployment) -> None:
    set_load(deployment.lab.machine("agx"), {"gpu": 64, "cpu": 33})
    wanted = {"agx": {"gpu": 64.0, "cpu": 33.0, "memory": 20.0}, "nuc": {"cpu": 5.0}}
    try:
        wait_until(
            lambda: agree(loads(deployment.lab, 9090), wanted),
            timeout=40,
            describe=lambda: f"{loads(deployment.lab, 9090)} is {wanted}",
            pause=0.5,
        )
    finally:
        set_load(deployment.lab.machine("agx"), {"gpu": 5, "cpu": 5})


@pytest.mark.parametrize(("name", "service"), [("nuc", "posture-broker"), ("pi1", "posture-publisher")])
def test_a_killed_service_is_started_again(deployment: Deployment, name: str, service: str) -> None:
    machine = deployment.lab.machine(name)
    ask = f"systemctl show --property=MainPID --value {service}"
    before = machine.shell(ask)
    machine.shell(f"kill -KILL {before}")
    wait_until(
        lambda: machine.shell(ask) not in {before, "0\n"}, timeout=30, describe=f"{service} runs again", pause=0.2
    )


@pytest.mark.parametrize("name", FIVE)
def test_no_service_is_exposed_or_has_a_secret_in_its_environment(deployment: Deployment, name: str) -> None:
    machine = deployment.lab.machine(name)
    secrets = deployment.secrets().values()
    services = deployment.services(name)
    assert services
    for service in services:
        machine.shell(f"systemd-analyze security --threshold=20 --no-pager {service}")
        shown = machine.shell(f"systemctl show --property=MainPID,LimitCORE,MemoryMax {service}").split()
        found = dict(line.split("=", 1) for line in shown)
        assert found["LimitCORE"] == "0"
        assert found["MemoryMax"] != "infinity"
        environment = machine.shell(f"tr '\\0' '\\n' </proc/{found['MainPID']}/environ")
        assert not [secret for secret in secrets if secret in environment], service


@pytest.mark.timeout(300)
def test_a_publisher_that_hangs_is_started_again(deployment: Deployment) -> None:
    machine = deployment.lab.machine("pi1")
    ask = "systemctl show --property=MainPID --value posture-publisher"
    hung = machine.shell(ask)
    machine.shell(f"kill -STOP {hung}")
    wait_until(lambda: machine.shell(ask) not in {hung, "0\n"}, timeout=180, describe="it runs again", pause=1)
    assert "Watchdog timeout" in machine.shell("journalctl --no-pager --unit posture-publisher --lines 50")
    wait_until(
        lambda: "ok" in machine.shell("systemctl show --property=StatusText --value posture-publisher"),
        timeout=90,
        describe="it is well and says so",
        pause=1,
    )


@pytest.mark.timeout(300)
def test_everything_comes_back_when_all_machines_reboot_at_once(deployment: Deployment) -> None:
    before = {name: (deployment.lab.machine(name).booted_at(), deployment.services(name)) for name in FIVE}
    for name in FIVE:
        deployment.lab.machine(name).shell("systemctl reboot")
    for name, (boot, services) in before.items():
        _await_reboot(deployment, name, boot, services)
    counted = wait_until(lambda: _rows(deployment), timeout=60, describe="the database answers", pause=1)
    for pi in _PIS:
        deployment.lab.machine(pi).shell(f"cp /{CAMERA}/camera.jpg /{CAMERA}/after-reboot.jpg")
    wait_until(lambda: _grew(deployment, counted), timeout=120, describe="rows of both arrive again", pause=1)


def _await_reboot(deployment: Deployment, name: str, boot: str, services: dict[str, str]) -> None:
    machine = deployment.lab.machine(name)
    wait_until(lambda: machine.booted_at() not in {boot, ""}, timeout=90, describe=f"{name} is back", pause=0.5)
    wait_until(
        lambda: deployment.services(name) == services,
        timeout=90,
        describe=f"{name} has its services {services}",
        pause=0.5,
    )


def _rows(deployment: Deployment) -> dict[str, int]:
    try:
        return deployment.rows()
    except LabError:  # PostgreSQL takes no connections yet
        return {}


def _grew(deployment: Deployment, before: dict[str, int]) -> bool:
    now = deployment.rows()
    return all(now.get(pi, 0) > before.get(pi, 0) for pi in _PIS)
