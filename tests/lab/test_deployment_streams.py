"""Analyzers as Jobs on a real cluster: streams move by load, taint and hand, and no image is lost or counted twice.

One deployment for all, in which the Pis' cameras never pause. A test moves a stream or breaks something, waits until
images of both Pis get their rows again, and says how long there were none; what became of every image is counted after
the last fault. Only the last two tests depend on those before them.
"""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.filter.job_admission import job_admission
from tests.lab import kubernetes
from tests.lab.api import Api, Object
from tests.lab.deployment import Deployment
from tests.lab.feed import Feed
from tests.lab.lab import Lab
from tests.lab.load import set_load
from tests.lab.settings import CONTROL, NODES
from tests.lab.streams import ASSIGNED, Streams
from tests.lab.tools import run
from tests.support.waiting import wait_until

_PIS = ("pi1", "pi2")
_WORKERS = ("agx", "orin")
_NAMESPACE = "/api/v1/namespaces/posture"
_JOBS = "/apis/batch/v1/namespaces/posture/jobs"
_PLACEMENTS = f"{_NAMESPACE}/configmaps/posture-placements"
_TEMPLATE = f"{_NAMESPACE}/configmaps/posture-job"
_RULES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/posture-offloader-jobs"
_IMAGES = "var/lib/posture/images"
_OUTAGE_S = 20
_MOVE_S = 90  # for a move at most: a node that has not run the image before gets it first
pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Site:
    """The deployment, and what is seen of it from outside."""

    deployment: Deployment
    api: Api
    streams: Streams
    feed: Feed

    @property
    def lab(self) -> Lab:
        """The machines."""
        return self.deployment.lab

    def place(self, nodes: Mapping[str, str], *, timeout: float = _MOVE_S) -> None:
        """Ask for streams to be on these nodes, and return when they are active there."""
        moving = {stream: node for stream, node in nodes.items() if self.streams.node(stream) != node}
        for stream, node in moving.items():
            self.ask(stream, node)
        self.streams.wait_for(nodes, timeout=timeout)

    def ask(self, stream: str, node: str) -> None:
        """Ask the offloader for a move, as playbooks/offload.yml does."""
        self.api.change(_PLACEMENTS, {"metadata": {"annotations": {f"posture.edge/move-{stream}": node}}})

    def template(self) -> str:
        """Return what the Jobs are made from."""
        text: str = self.api.get(_TEMPLATE)["data"]["posture-job.yaml"]
        return text

    def change_template(self, text: str) -> None:
        """Have the Jobs made from another template, as `up` does: the cluster refuses what its rules do not expect."""
        self.api.change(_RULES, {"spec": job_admission(yaml.safe_load(text), _PIS)})
        self.api.change(_TEMPLATE, {"data": {"posture-job.yaml": text}})

    def node(self, stream: str) -> str:
        """Return where the stream is active; waits until it is somewhere."""
        return (
            wait_until(
                lambda: self.streams.node(stream),
                timeout=_MOVE_S,
                describe=lambda: f"{stream} is active; {self.streams}",
            )
            or ""
        )

    def other(self, stream: str) -> str:
        """Return a worker that the stream is not on."""
        return next(name for name in _WORKERS if name != self.node(stream))

    def jobs(self, stream: str) -> dict[int, Object]:
        """Return the stream's Jobs by epoch."""
        found = self.api.get(_JOBS, labelSelector=f"posture.edge/stream={stream}")["items"]
        return {int(job["metadata"]["labels"]["posture.edge/epoch"]): job for job in found}

    def pods(self, selector: str) -> list[Object]:
        """Return pods by their labels."""
        pods: list[Object] = self.api.get(f"{_NAMESPACE}/pods", labelSelector=selector)["items"]
        return pods

    def analyzer(self, stream: str) -> int:
        """Return the process of the stream's active analyzer, as this computer numbers it."""
        node, epoch = self.node(stream), str(self.streams.epoch(stream))
        found = self.lab.machine(node).processes("posture-analyzer", POSTURE_STREAM=stream, POSTURE_EPOCH=epoch)
        assert found, f"{node} runs no analyzer of {stream}, epoch {epoch}"
        return min(found)

    def offloader(self) -> tuple[str, int]:
        """Return the offloader's pod and its process."""

        def running() -> tuple[str, int] | None:
            for pod in self.pods("app.kubernetes.io/name=posture-offloader"):
                node = pod["spec"].get("nodeName")
                found = self.lab.machine(node).processes("posture-offloader") if node else []
                if found and "deletionTimestamp" not in pod["metadata"]:
                    return pod["metadata"]["name"], min(found)
            return None

        found = wait_until(running, timeout=60, describe="the offloader runs", pause=0.2)
        assert found
        return found

    @contextmanager
    def fault(self, what: str, *, pis: tuple[str, ...] = _PIS) -> Iterator[None]:
        """Say how long each Pi had no row, from the beginning until images that are taken after the end have theirs."""
        began = time.time()
        self.feed.faults.append((began, what))
        yield
        self.feed.wait_for_rows(pis, timeout=60)
        for pi in pis:
            print(f"{what}: no row of {pi} for {self.feed.gap(pi, began):.1f} s")


@pytest.fixture(scope="module")
def site(deployment: Deployment) -> Iterator[Site]:
    """Cameras that never pause, and what is said of the streams."""
    address = deployment.lab.machine(CONTROL).address
    password = deployment.secrets()["mqtt-posture-offloader"]
    with (
        Api(deployment.lab.kubeconfig) as api,
        Streams(address, 8883, user="posture-offloader", password=password, ca=deployment.ca) as streams,
        Feed(deployment, _PIS) as feed,
    ):
        yield Site(deployment, api, streams, feed)


# Without a fault


def test_jobs_on_home_analyse_both_streams(site: Site, recorded: dict[str, str]) -> None:
    site.place(dict.fromkeys(_PIS, CONTROL))
    began = time.time()
    site.feed.wait_for_rows(_PIS)
    rows = wait_until(lambda: site.feed.rows(began + 1), timeout=30, describe="rows of a second later", pause=0.3)
    assert {row.node for row in rows} == {CONTROL}
    for stream in _PIS:
        epoch = site.streams.epoch(stream)
        job = site.jobs(stream)[epoch]
        assert job["metadata"]["name"] == f"posture-{stream}-{epoch}"
        pod = job["spec"]["template"]["spec"]
        assert [container["image"] for container in pod["containers"]] == [recorded["analyzer"]]
        assert not pod["automountServiceAccountToken"]
        _assert_restricted(site.analyzer(stream))


def _assert_restricted(process: int) -> None:
    """By the kernel's own word: a user without capabilities, with a filter of system calls, on a read-only root."""
    lines = (line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines())
    status = {line[0].rstrip(":"): line[1] for line in lines if len(line) > 1}
    wanted = {"Uid": "10001", "Gid": "10001", "CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    assert {name: status[name] for name in wanted} == wanted
    mounts = [line.split() for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines()]
    assert "ro" in next(mount[5] for mount in mounts if mount[4] == "/").split(",")


def test_streams_leave_a_busy_home_and_do_not_come_back_at_once(site: Site) -> None:
    home = site.lab.machine(CONTROL)
    site.place(dict.fromkeys(_PIS, CONTROL))
    set_load(home, {"cpu": 75})
    try:
        with site.fault("a move by load"):
            wait_until(
                lambda: all(site.streams.node(stream) in _WORKERS for stream in _PIS),
                timeout=_MOVE_S,
                describe=lambda: f"both streams are on workers; {site.streams}",
            )
    finally:
        set_load(home, {"cpu": 20})
    epochs = {stream: site.streams.epoch(stream) for stream in _PIS}
    newest = {row.pi: row.node for row in site.feed.rows()}
    assert newest == {stream: site.streams.node(stream) for stream in _PIS}
    wait_until(lambda: _load(site, CONTROL) < 30, timeout=30, describe=lambda: f"home is free; {site.streams}")
    assert {stream: site.streams.epoch(stream) for stream in _PIS} == epochs


def _load(site: Site, node: str) -> float:
    nodes = site.streams.status.get("nodes", ())
    return next((float(each["loads"].get("cpu", 100)) for each in nodes if each["node"] == node), 100)


def test_a_stream_is_moved_by_hand_and_the_status_says_so(site: Site) -> None:
    node = site.other("pi2")
    with site.fault("a move by hand", pis=("pi2",)):
        played = site.deployment.play("offload", "-e", f"posture_stream=pi2 posture_target_node={node}")
        site.streams.wait_for({"pi2": node}, timeout=_MOVE_S)
    assert played.changed["localhost"] == 1
    status = site.deployment.play("status").output
    assert any("pi2" in line and node in line and "active" in line for line in status.splitlines()), status


# What breaks; both streams on workers where nothing else is said


def test_a_killed_analyzer_is_replaced(site: Site) -> None:
    epoch = site.streams.epoch("pi1")
    with site.fault("an analyzer killed"):
        os.kill(site.analyzer("pi1"), signal.SIGKILL)
        wait_until(lambda: site.streams.epoch("pi1") > epoch, timeout=60, describe=lambda: f"a new one; {site.streams}")
        site.node("pi1")


def test_a_database_that_is_away_during_a_handover(site: Site) -> None:
    target, machine = site.other("pi1"), site.lab.machine(CONTROL)
    with site.fault("the database away during a handover"):
        machine.shell("systemctl stop posture-database")
        try:
            site.ask("pi1", target)
            time.sleep(_OUTAGE_S)  # the outage itself
            assert site.streams.epoch("pi2")
        finally:
            machine.shell("systemctl start posture-database")
        site.streams.wait_for({"pi1": target}, timeout=_MOVE_S)


@pytest.mark.parametrize("moment", ["warming", ASSIGNED])
def test_a_broker_killed_during_a_handover(site: Site, moment: str) -> None:
    target = site.other("pi1")
    (broker,) = site.lab.machine(CONTROL).processes("mosquitto")
    with site.fault(f"the broker killed at '{moment}'"):
        with site.streams.at("pi1", moment, lambda: os.kill(broker, signal.SIGKILL)) as killed:
            site.ask("pi1", target)
            assert killed.wait(_MOVE_S), site.streams
        site.streams.wait_for({"pi1": target}, timeout=_MOVE_S)


def test_an_offloader_killed_when_it_has_written_down_what_it_will_do(site: Site) -> None:
    target, (_, process) = site.other("pi1"), site.offloader()
    before = site.api.get(_PLACEMENTS)["data"]["pi1"]
    with site.fault("the offloader killed before a handover"):
        site.ask("pi1", target)
        wait_until(
            lambda: site.api.get(_PLACEMENTS)["data"]["pi1"] != before,
            timeout=30,
            describe="the offloader has written something down",
            pause=0,
        )
        os.kill(process, signal.SIGKILL)
        site.streams.wait_for({"pi1": target}, timeout=_MOVE_S)
    _assert_one_job(site, "pi1")


@pytest.mark.parametrize("moment", ["warming", ASSIGNED])
def test_an_offloader_killed_during_a_handover(site: Site, moment: str) -> None:
    """With its pod, so that the next one has to wait for the Lease."""
    target, (pod, process) = site.other("pi1"), site.offloader()
    with site.fault(f"the offloader killed at '{moment}'"):
        with site.streams.at("pi1", moment, lambda: os.kill(process, signal.SIGKILL)) as killed:
            site.ask("pi1", target)
            assert killed.wait(_MOVE_S), site.streams
        site.api.delete(f"{_NAMESPACE}/pods/{pod}")
        site.streams.wait_for({"pi1": target}, timeout=_MOVE_S)
        assert site.offloader()[0] != pod
    _assert_one_job(site, "pi1")


def _assert_one_job(site: Site, stream: str) -> None:
    epoch = site.streams.epoch(stream)
    wait_until(
        lambda: [each for each, job in site.jobs(stream).items() if job["status"].get("active")] == [epoch],
        timeout=45,
        describe=lambda: f"only epoch {epoch} of {stream} runs: {site.jobs(stream)}",
        pause=0.3,
    )


def test_an_image_that_cannot_be_had_disturbs_nobody(site: Site, recorded: dict[str, str]) -> None:
    target, node, epoch = site.other("pi1"), site.node("pi1"), site.streams.epoch("pi1")
    template = site.template()
    digest = recorded["analyzer"].partition("sha256:")[2]
    site.change_template(template.replace(digest, "0" * 64))
    try:
        with site.fault("an image that cannot be had"):
            site.ask("pi1", target)
            wait_until(
                lambda: target in site.streams.reason("pi1") and "Image" in site.streams.reason("pi1"),
                timeout=_MOVE_S,
                describe=lambda: f"the status says that {target} has no such image; {site.streams}",
            )
        assert (site.streams.epoch("pi1"), site.streams.node("pi1")) == (epoch, node)
    finally:
        site.change_template(template)
        site.ask("pi1", node)
    _assert_one_job(site, "pi1")


def test_a_changed_template_reaches_every_stream(site: Site) -> None:
    before = {stream: site.streams.epoch(stream) for stream in _PIS}
    nodes = {stream: site.node(stream) for stream in _PIS}
    template = yaml.safe_load(site.template())
    template["spec"]["template"]["spec"]["containers"][0]["env"] += [{"name": "POSTURE_JPEG_QUALITY", "value": "80"}]
    with site.fault("a changed template"):
        site.change_template(yaml.safe_dump(template))
        wait_until(
            lambda: all(site.streams.epoch(stream) > epoch for stream, epoch in before.items()),
            timeout=_MOVE_S,
            describe=lambda: f"both streams have new Jobs; {site.streams}",
        )
        site.streams.wait_for(nodes, timeout=_MOVE_S)
    for stream in _PIS:
        environment = Path(f"/proc/{site.analyzer(stream)}/environ").read_bytes()
        assert b"POSTURE_JPEG_QUALITY=80\0" in environment


def test_a_taint_sends_streams_from_home(site: Site) -> None:
    site.place({"pi2": CONTROL})
    taint = "dedicated=master:NoSchedule"
    _kubectl(site, "taint", "nodes", CONTROL, taint)
    try:
        with site.fault("a taint on home", pis=("pi2",)):
            wait_until(
                lambda: site.streams.node("pi2") in _WORKERS,
                timeout=_MOVE_S,
                describe=lambda: f"pi2 is on a worker; {site.streams}",
            )
    finally:
        _kubectl(site, "taint", "nodes", CONTROL, f"{taint}-")


def test_a_node_without_power_gives_its_streams_away(site: Site) -> None:
    node = site.node("pi1")
    lost = {stream: site.streams.epoch(stream) for stream in _PIS if site.streams.node(stream) == node}
    with site.fault(f"the power of a node cut that has {len(lost)}"):
        site.lab.power_off(node)
        try:
            _wait_until_left(site, lost, node)
        finally:
            site.lab.power_on(node)
    _wait_until_ready(site)
    wait_until(
        lambda: not [epoch for stream, epoch in lost.items() if _pod_lives(site, stream, epoch)],
        timeout=60,
        describe=lambda: f"the stale pods have ended: {site.pods('app.kubernetes.io/name=posture-analyzer')}",
        pause=0.3,
    )


def _pod_lives(site: Site, stream: str, epoch: int) -> bool:
    pods = site.pods(f"posture.edge/stream={stream},posture.edge/epoch={epoch}")
    return any(pod["status"]["phase"] not in {"Failed", "Succeeded"} for pod in pods)


def test_a_node_without_network_does_not_take_its_stream_back(site: Site) -> None:
    stream, node, stale = "pi2", site.node("pi2"), site.analyzer("pi2")
    lost = {each: site.streams.epoch(each) for each in _PIS if site.streams.node(each) == node}
    with site.fault("a node's network cut"):
        site.lab.set_link(node, up=False)
        try:
            _wait_until_left(site, lost, node)
            assert Path(f"/proc/{stale}").exists(), "it was to live through this"
        finally:
            site.lab.set_link(node, up=True)
        restored = time.time()
    _wait_until_ready(site)
    wait_until(
        lambda: not Path(f"/proc/{stale}").exists(), timeout=60, describe="the stale analyzer has ended", pause=0.2
    )
    assert not [row for row in site.feed.rows(restored + 1) if row.pi == stream and row.node == node]


def _wait_until_left(site: Site, lost: Mapping[str, int], node: str) -> None:
    """Return when the streams, which had these epochs, are active elsewhere."""
    wait_until(
        lambda: all(
            site.streams.epoch(stream) > epoch and site.streams.node(stream) not in {node, None}
            for stream, epoch in lost.items()
        ),
        timeout=_MOVE_S,
        describe=lambda: f"{set(lost)} have left {node}; {site.streams}",
    )


def _wait_until_ready(site: Site) -> None:
    wait_until(lambda: site.api.ready_nodes() == set(NODES), timeout=60, describe="all nodes are Ready", pause=0.3)


# What became of it all


def test_no_image_was_lost_and_none_counted_twice(site: Site) -> None:
    site.feed.settle(timeout=90)
    pictures = {name: _pictures(site, name) for name in NODES}
    missing = [
        row
        for row in site.feed.rows()
        if (row.pi, row.filename) in site.feed.sent and (row.pi, Path(row.filename).stem) not in pictures[row.node]
    ]
    assert not missing
    assert {stream: len(_running(site, stream)) for stream in _PIS} == dict.fromkeys(_PIS, 1)


def _pictures(site: Site, node: str) -> set[tuple[str, str]]:
    """Return the pictures on a node by their Pi and the stem of the image's file name."""
    folder, prefix = site.lab.machine(node).root / _IMAGES, "analyzed_images_from_"
    return {(file.parent.name.removeprefix(prefix), file.stem.rpartition("-")[0]) for file in folder.glob("*/*.jpg")}


def _running(site: Site, stream: str) -> list[Object]:
    return [pod for pod in site.pods(f"posture.edge/stream={stream}") if pod["status"]["phase"] == "Running"]


def test_down_leaves_the_pictures_and_nothing_else(site: Site) -> None:
    nodes = {name: site.api.get(f"/api/v1/nodes/{name}")["metadata"] for name in NODES}
    assert [name for name in NODES if nodes[name]["labels"].get("role") == "worker"] == list(_WORKERS)
    assert site.streams.retained()
    site.deployment.play("down")
    assert not site.api.exists(_NAMESPACE)
    for name in NODES:
        node: Any = site.api.get(f"/api/v1/nodes/{name}")
        assert "role" not in node["metadata"]["labels"]
        assert not [each for each in node["metadata"].get("annotations", {}) if each.startswith("posture.edge/")]
        assert not [each for each in node["spec"].get("taints", ()) if each["key"] == "dedicated"]
        assert list((site.lab.machine(name).root / _IMAGES).glob("*/*.jpg"))
    assert not [
        each["metadata"]["name"]
        for each in site.api.get("/apis/rbac.authorization.k8s.io/v1/clusterroles")["items"]
        if "posture" in each["metadata"]["name"]
    ]


def _kubectl(site: Site, *words: str) -> str:
    return run(kubernetes.binaries()[0] / "kubectl", f"--kubeconfig={site.lab.kubeconfig}", *words)
