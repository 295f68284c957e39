"""The offloader as a process, with a real API server, a real broker and a real Prometheus; the analyzers are played."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from posture_common.mqtt import Broker as Address

from posture_edge.load import PrometheusError
from tests.lab.api import Api
from tests.lab.cast import TEMPLATE, Cast, playing
from tests.lab.lab import Lab
from tests.lab.load import PROMETHEUS_PORT, set_load
from tests.lab.observed import Loads, agree, loads
from tests.lab.settings import CONTROL, NODES
from tests.support.brokers import ADMIN, Broker
from tests.support.mosquitto import NEW, Mosquitto
from tests.support.programs import Program
from tests.support.sessions import find_session
from tests.support.waiting import wait_until

_WORKERS = ("agx", "orin")
_OFFLOADER = "posture-offloader"
pytestmark = pytest.mark.timeout(180)


@dataclass
class Stage:
    """A cluster, a broker, played analyzers, and what starts offloaders."""

    lab: Lab
    api: Api
    namespace: str
    broker: Broker
    cast: Cast
    start: Callable[..., Program]


@pytest.fixture(scope="module")
def workers(lab: Lab) -> Iterator[None]:
    """The lab's workers labelled."""
    with Api(lab.kubeconfig) as api:
        for name in _WORKERS:
            api.change(f"/api/v1/nodes/{name}", {"metadata": {"labels": {"role": "worker"}}})
        yield
        for name in _WORKERS:
            api.change(f"/api/v1/nodes/{name}", {"metadata": {"labels": {"role": None}}})


@pytest.fixture
def stage(lab: Lab, workers: None, namespace: str, mosquittos: dict[str, Mosquitto], tmp_path: Path) -> Iterator[Stage]:
    """A namespace with a template, a fresh broker, and played analyzers, on nodes that are seen to be idle."""
    _await_idle(lab)
    with ExitStack() as stack:
        api = stack.enter_context(Api(lab.kubeconfig))
        broker = stack.enter_context(Broker(mosquittos[NEW], tmp_path / "broker", pis=["pi1", "pi2"]))
        _write_template(api, namespace, TEMPLATE)
        address = Address(host="127.0.0.1", port=broker.port, user=ADMIN, password=broker.passwords[ADMIN])
        cast = stack.enter_context(playing(stack.enter_context(Api(lab.kubeconfig)), namespace, address))

        def start(name: str = "offloader", **settings: str) -> Program:
            environment = {
                "KUBECONFIG": str(lab.kubeconfig),
                "POSTURE_NAMESPACE": namespace,
                "POSTURE_STREAMS": "pi1,pi2",
                "POSTURE_HOME": CONTROL,
                "POSTURE_PROMETHEUS_URL": f"http://{lab.machine(CONTROL).address}:{PROMETHEUS_PORT}",
                "POSTURE_MQTT_HOST": "127.0.0.1",
                "POSTURE_MQTT_PORT": str(broker.port),
                "POSTURE_MQTT_USER": _OFFLOADER,
                "POSTURE_MQTT_PASSWORD": broker.passwords[_OFFLOADER],
                "POSTURE_TICK": "1",
                "POSTURE_READY_TIMEOUT": "8",
            } | {f"POSTURE_{key}": value for key, value in settings.items()}
            program = Program(_OFFLOADER, environment, log=tmp_path / f"{name}.log", secrets=broker.passwords.values())
            return stack.enter_context(program)

        yield Stage(lab, api, namespace, broker, cast, start)


def test_streams_start_at_home_leave_it_when_it_is_busy_and_one_offloader_does_it(stage: Stage) -> None:
    first = stage.start()
    first.wait_ready()
    _await_nodes(stage, {"pi1": CONTROL, "pi2": CONTROL})
    second = stage.start("second")
    wait_until(lambda: "holds the Lease" in second.get("/readyz")[1], timeout=20, describe="the second one waits")
    set_load(stage.lab.machine(CONTROL), {"cpu": 80})
    try:
        wait_until(
            lambda: set(stage.cast.active.values()) <= set(_WORKERS),
            timeout=60,
            describe=lambda: f"both are on workers: {stage.cast.active}, {_status(first)}",
            pause=0.5,
        )
        first.kill()
        second.wait_ready(timeout=40)
    finally:
        set_load(stage.lab.machine(CONTROL), {"cpu": 5})
    wait_until(
        lambda: (
            {each["stream"]: each["state"] for each in _status(second)["streams"]} == {"pi1": "active", "pi2": "active"}
        ),
        timeout=20,
        describe=lambda: f"both streams are active: {_status(second)}",
        pause=0.5,
    )
    said = _status(second)
    assert {each["node"] for each in said["nodes"]} == {CONTROL, *_WORKERS}
    assert all(epochs == sorted(set(epochs)) for epochs in stage.cast.assignments.values())
    events = stage.api.get(f"/api/v1/namespaces/{stage.namespace}/events")["items"]
    assert any("nuc is overloaded" in each["message"] for each in events if each["reason"] == "Moving")
    assert second.terminate() == 0
    third = stage.start("third")
    third.wait_ready(timeout=8)  # the second gave the Lease back


def test_an_analyzer_that_dies_and_one_that_never_gets_ready(stage: Stage) -> None:
    offloader = stage.start(STREAMS="pi1")
    offloader.wait_ready()
    _await_nodes(stage, {"pi1": CONTROL})
    stage.cast.silent = {"orin"}
    _ask(stage, "pi1", "orin")
    wait_until(
        lambda: "orin: its analyzer was not ready within 8 s" in json.dumps(_status(offloader)),
        timeout=30,
        describe="the status says so",
        pause=0.5,
    )
    assert stage.cast.active == {"pi1": CONTROL}
    _ask(stage, "pi1", "agx")
    _await_nodes(stage, {"pi1": "agx"})
    stage.cast.kill("pi1")
    wait_until(lambda: len(stage.cast.assignments["pi1"]) == 3, timeout=40, describe="the next epoch is assigned")
    _await_nodes(stage, {"pi1": "agx"})


def test_what_people_break_is_named_and_mended(stage: Stage) -> None:
    offloader = stage.start(STREAMS="pi1")
    offloader.wait_ready()
    _await_nodes(stage, {"pi1": CONTROL})
    _write_template(stage.api, stage.namespace, {"kind": "Pod"})
    _ask(stage, "pi1", "agx")
    wait_until(
        lambda: "posture-job.yaml holds no Job" in json.dumps(_status(offloader)), timeout=20, describe="it is told"
    )
    refused = json.loads(json.dumps(TEMPLATE))
    refused["spec"]["template"]["spec"]["containers"][0]["image"] = ""
    _write_template(stage.api, stage.namespace, refused)
    _ask(stage, "pi1", "orin")
    wait_until(lambda: "Kubernetes refuses (422)" in offloader.output, timeout=30, describe="the refusal is told")
    _write_template(stage.api, stage.namespace, TEMPLATE)
    stage.api.change(_map(stage, "posture-placements"), {"data": {"pi1": "nonsense"}})
    wait_until(lambda: "pi1: Invalid JSON" in offloader.output, timeout=20, describe="the damage is named")
    wait_until(
        lambda: stage.api.get(_map(stage, "posture-placements"))["data"]["pi1"].startswith("{"),
        timeout=20,
        describe="it is written anew",
    )
    assert stage.cast.active == {"pi1": CONTROL}
    assert set(stage.cast.assignments["pi1"]) == {1}
    stage.broker.stop()
    wait_until(lambda: "broker 127.0.0.1" in offloader.get("/readyz")[1], timeout=30, describe="the broker is missed")
    assert offloader.get("/healthz")[0] == 200


def test_a_removed_stream_ends_with_its_session_and_the_api_server_may_go_away(stage: Stage) -> None:
    offloader = stage.start()
    offloader.wait_ready()
    _await_nodes(stage, {"pi1": CONTROL, "pi2": CONTROL})
    assert [find_session(stage.broker, stream) for stream in ("pi1", "pi2")] == [False, False]  # now they are there
    assert offloader.terminate() == 0
    offloader = stage.start("fewer", STREAMS="pi1")
    offloader.wait_ready()
    wait_until(
        lambda: set(stage.api.get(_map(stage, "posture-placements"))["data"]) == {"pi1"},
        timeout=60,
        describe="pi2 is forgotten",
        pause=0.5,
    )
    assert set(stage.cast.active) == {"pi1"}
    assert [find_session(stage.broker, stream) for stream in ("pi1", "pi2")] == [True, False]
    stage.lab.set_link(CONTROL, up=False)
    try:
        wait_until(
            lambda: "the API server does not answer" in offloader.get("/readyz")[1], timeout=30, describe="it is missed"
        )
        assert offloader.get("/healthz")[0] == 200
    finally:
        stage.lab.set_link(CONTROL, up=True)
    offloader.wait_ready(timeout=60)


def _status(offloader: Program) -> dict[str, Any]:
    """Return what `posture-offloader status --json` prints."""
    command = [str(Path(sys.executable).with_name(_OFFLOADER)), "status", "--json"]
    done = subprocess.run(command, env=offloader.environment, capture_output=True, text=True, check=True, timeout=20)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _await_idle(lab: Lab) -> None:
    """Wait until Prometheus, whose node other tests cut off, knows that every node is idle."""
    seen: list[Loads | PrometheusError] = []

    def idle() -> bool:
        try:
            found = loads(lab, PROMETHEUS_PORT)
        except PrometheusError as error:
            seen[:] = [error]
            return False
        seen[:] = [found]
        return agree(found, {name: {"cpu": 5} for name in NODES})

    wait_until(idle, timeout=90, describe=lambda: f"all nodes are seen to be idle: {seen}", pause=0.5)


def _await_nodes(stage: Stage, wanted: dict[str, str]) -> None:
    wait_until(lambda: stage.cast.active == wanted, timeout=40, describe=lambda: f"{stage.cast.active} is {wanted}")


def _ask(stage: Stage, stream: str, node: str) -> None:
    annotations = {f"posture.edge/move-{stream}": node}
    stage.api.change(_map(stage, "posture-placements"), {"metadata": {"annotations": annotations}})


def _write_template(api: Api, namespace: str, template: dict[str, Any]) -> None:
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    data = {"posture-job.yaml": json.dumps(template)}
    if api.exists(f"{maps}/posture-job"):
        api.change(f"{maps}/posture-job", {"data": data})
    else:
        api.create(maps, {"metadata": {"name": "posture-job"}, "data": data})


def _map(stage: Stage, name: str) -> str:
    return f"/api/v1/namespaces/{stage.namespace}/configmaps/{name}"
