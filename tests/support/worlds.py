"""A cluster and a broker in memory, with analyzers that follow the protocol: for faults at moments nobody could hit."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posture_common.epochs import Assignment, State
from posture_offloader.cluster import ClusterError, ConflictError, Placements
from posture_offloader.controller import Controller
from posture_offloader.handover import Job
from posture_offloader.settings import OffloaderSettings

from posture_edge import load

READY_AFTER_S = 2.0
PATIENCE_S = 5.0
TEMPLATE = {"kind": "Job", "spec": {"template": {"spec": {"containers": [{"name": "analyzer", "image": "i"}]}}}}


class KilledError(Exception):
    """The offloader was killed just before it did something."""


@dataclass
class Analyzer:
    """The analyzer of an epoch, as contract and container let it be."""

    stream: str
    epoch: int
    node: str
    started: float
    state: State = State.WARMING
    assigned_at: float | None = None
    finished: bool = False

    @property
    def owns(self) -> bool:
        """Whether it holds the stream's session."""
        return self.state in (State.ACTIVE, State.DRAINING)


@dataclass
class World:
    """Nodes, loads, Jobs, what is retained at the broker, and the time."""

    loads: dict[str, float]
    streams: Sequence[str] = ("pi1",)
    home: str | None = "nuc"
    now: float = 1000.0
    kill_at: int | None = None
    ready_after_s: float = READY_AFTER_S
    adds: float = 0.0  # percent that a stream adds to the load of the node that has it
    fails: set[str] = field(default_factory=set)  # nodes where no analyzer gets ready
    crashes: set[str] = field(default_factory=set)  # nodes where every analyzer ends at once
    refuses: set[str] = field(default_factory=set)  # streams whose Jobs cannot be created
    cordoned: set[str] = field(default_factory=set)
    not_ready: set[str] = field(default_factory=set)
    prometheus: bool = True
    template: Any = field(default_factory=lambda: TEMPLATE)
    analyzers: dict[tuple[str, int], Analyzer] = field(default_factory=dict)
    assignments: dict[str, Assignment] = field(default_factory=dict)
    history: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    owners: list[tuple[float, str, int]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    version: int = 0
    done: int = 0

    def does(self) -> None:
        """Count something that the offloader does; die before it, where that is wanted."""
        self.done += 1
        if self.done == self.kill_at:
            raise KilledError

    def run(self, seconds: float, *, look_s: float = 3.0) -> None:
        """Let time pass, with an offloader that is started anew whenever it was killed."""
        end, offloader = self.now + seconds, offload(self)
        next_look = self.now
        while self.now < end:
            try:
                if self.now >= next_look:
                    next_look = self.now + look_s
                    offloader.look()
                else:
                    offloader.see_jobs()
                if offloader.picture.wanted:
                    offloader.follow()
            except KilledError:
                offloader, next_look = offload(self), self.now
            except ClusterError:
                pass
            self.pass_time(0.5)

    def pass_time(self, seconds: float) -> None:
        """Let the analyzers do what they do meanwhile."""
        self.now += seconds
        for each in self.analyzers.values():
            if not each.finished and each.node not in self.not_ready:
                self._live(each)

    def owner(self, stream: str) -> Analyzer | None:
        """Return the analyzer that holds the stream's session; there can be one."""
        owning = [each for each in self.analyzers.values() if each.stream == stream and each.owns]
        reachable = [each for each in owning if each.node not in self.not_ready]
        assert len(reachable) <= 1, reachable
        return reachable[0] if reachable else None

    def die(self, stream: str) -> None:
        """End the analyzer that owns the stream, all of a sudden."""
        owner = self.owner(stream)
        if owner is not None:
            owner.state, owner.finished = State.GONE, True

    def _live(self, each: Analyzer) -> None:
        assignment = self.assignments.get(each.stream)
        epoch = 0 if assignment is None else assignment.epoch
        if each.state is State.DRAINING or epoch > each.epoch:
            each.finished = each.state is State.DRAINING or not each.owns
            each.state = State.DONE if each.finished else State.DRAINING
        elif each.node in self.crashes:
            each.state, each.finished = State.GONE, True
        elif each.state is State.WARMING and self.now - each.started >= self.ready_after_s:
            if each.node not in self.fails:
                each.state = State.READY
        elif each.state is State.READY and epoch == each.epoch:
            each.assigned_at = each.assigned_at or self.now
            others = [other for other in self.analyzers.values() if other.stream == each.stream and other is not each]
            if not any(other.owns for other in others) or self.now - each.assigned_at >= PATIENCE_S:
                each.state = State.ACTIVE
                self.owners.append((self.now, each.node, each.epoch))


class MemoryCluster:
    """What `Cluster` does, done to a `World`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "spec": {"unschedulable": name in self._world.cordoned},
                "metadata": {"name": name, "labels": {} if name == self._world.home else {"role": "worker"}},
                "status": {"conditions": [{"type": "Ready", "status": str(name not in self._world.not_ready)}]},
            }
            for name in self._world.loads
        ]

    def jobs(self) -> dict[str, dict[int, Job]]:
        jobs: dict[str, dict[int, Job]] = defaultdict(dict)
        for (stream, epoch), each in self._world.analyzers.items():
            jobs[stream][epoch] = Job(each.finished, "exit code 1" if each.state is State.GONE else "")
        return jobs

    def template(self) -> Any:
        return self._world.template

    def create_job(self, job: dict[str, Any]) -> None:
        self._world.does()
        if job["metadata"]["labels"]["posture.edge/stream"] in self._world.refuses:
            raise ClusterError("Job: the API server does not answer")
        labels, node = job["metadata"]["labels"], job["spec"]["template"]["spec"]["nodeName"]
        key = labels["posture.edge/stream"], int(labels["posture.edge/epoch"])
        self._world.analyzers.setdefault(key, Analyzer(*key, node, self._world.now))

    def delete_job(self, stream: str, epoch: int) -> None:
        self._world.does()
        self._world.analyzers.pop((stream, epoch), None)

    def placements(self) -> Placements:
        world = self._world
        return Placements(dict(world.texts), dict(world.asked), str(world.version) if world.version else None)

    def save_placements(self, texts: Mapping[str, str], version: str | None) -> str:
        self._world.does()
        if version != (str(self._world.version) if self._world.version else None):
            raise ConflictError("ConfigMap posture-placements: it was changed")
        self._world.texts, self._world.asked = dict(texts), {}
        self._world.version += 1
        return str(self._world.version)

    def tell(self, stream: str, epoch: int, *, reason: str, message: str, warning: bool = False) -> None:
        self._world.told.append(message)


class MemoryBoard:
    """What `Board` does, done to a `World`."""

    synced_since: float | None = 0.0
    trouble = ""

    def __init__(self, world: World) -> None:
        self._world = world

    def states(self, stream: str) -> dict[int, tuple[State, float]]:
        return {
            epoch: (each.state, self._world.now) for (of, epoch), each in self._world.analyzers.items() if of == stream
        }

    def assignment(self, stream: str) -> Assignment | None:
        return self._world.assignments.get(stream)

    def assign(self, stream: str, epoch: int, node: str | None) -> None:
        assignment = Assignment(epoch=epoch, node=node)
        if self.assignment(stream) != assignment:
            self._world.does()
            self._world.assignments[stream] = assignment
            self._world.history[stream].append(epoch)

    def withdraw(self, stream: str) -> None:
        self._world.does()
        self._world.assignments.pop(stream, None)

    def forget_state(self, stream: str, epoch: int) -> None:
        self._world.does()

    def forget_stream(self, stream: str) -> None:
        self._world.does()
        self._world.forgotten.append(stream)
        self._world.assignments.pop(stream, None)

    def frame_age_s(self, stream: str) -> float | None:
        return None


def offload(world: World) -> Controller:
    """Return an offloader that remembers nothing but what is in the world."""
    settings = OffloaderSettings.read(
        {
            "POSTURE_STREAMS": ",".join(world.streams),
            "POSTURE_HOME": world.home or "",
            "POSTURE_PROMETHEUS_URL": "http://127.0.0.1:9",
            "POSTURE_METRICS": '[{"name": "cpu"}]',
        }
    )
    cluster: Any = MemoryCluster(world)
    board: Any = MemoryBoard(world)
    return Controller(settings, cluster, board, clock=lambda: world.now)


def read_loads(world: World) -> Callable[..., load.LoadReport]:
    """Return what stands in for load.read_loads: the world's loads."""

    def read(*_: Any, **__: Any) -> load.LoadReport:
        if not world.prometheus:
            raise load.PrometheusError("Prometheus does not answer")
        owned = Counter(each.node for each in world.analyzers.values() if each.owns)
        return load.LoadReport(
            {
                name: load.NodeLoad({"cpu": load.Reading(cpu + world.adds * owned[name], 0.1)})
                for name, cpu in world.loads.items()
            }
        )

    return read
