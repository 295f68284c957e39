"""What the offloader does: look, let the policy decide, bring each stream a step nearer, say so.

    Prometheus: loads --.
    Kubernetes: nodes --+-> policy -> where each stream is wanted --.
                                                                    +-> records, written down -> Jobs, assignments
    Kubernetes: Jobs, pods -----------------------------------------|
    broker: what analyzers say -------------------------------------'

`look` takes a sample of every node and asks the policy: once a tick. `follow` brings the streams on: at every tick, and
at once when an analyzer has said something. All that is remembered is in the ConfigMap posture-placements.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from posture_edge import load, placement
from posture_edge.cluster import node_address, node_state
from posture_edge.job import TemplateError, render
from posture_edge.observed import nodes_of

from . import metrics, records
from .board import Board
from .cluster import Cluster, ClusterError, RefusedError
from .handover import Job, Placed, Record, Seen, Step, Wanted, adopt, asked, clamp, refused, retire, step
from .settings import OffloaderSettings

log = logging.getLogger(__name__)


@dataclass
class Picture:
    """What was seen and thought at the last tick."""

    nodes: tuple[placement.Node, ...] = ()
    verdicts: Mapping[str, placement.Verdict] = field(default_factory=dict)
    wanted: dict[str, Wanted] = field(default_factory=dict)
    prometheus: str = ""
    """Why Prometheus does not answer, empty where it does."""
    template: str = ""
    """A digest of what Jobs are made of; empty where that is no Job."""


class Controller:
    """Keeps each stream on the node that the policy chooses. Its methods raise ClusterError."""

    def __init__(
        self, settings: OffloaderSettings, cluster: Cluster, board: Board, *, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._board = board
        self._clock = clock
        self._prometheus = settings.make_prometheus()
        self._histories: Mapping[str, placement.History] = {}
        self._version: str | None = None
        self._texts: dict[str, str] = {}
        self._asked: dict[str, str] = {}
        self.records: dict[str, Record] = {}
        self.jobs: Mapping[str, Mapping[int, Job]] = {}
        self.picture = Picture()

    @property
    def unsettled(self) -> bool:
        """Whether some stream is on its way, so that the next look should not wait long."""
        return any(
            record.pending is not None or (record.assigned is not None and not record.assigned.node)
            for record in self.records.values()
        )

    def look(self) -> None:
        """Take a sample of every node and let the policy say where each stream is wanted."""
        settings, now = self._settings, self._clock()
        self._load()
        self.see_jobs()
        template = _digest(self._cluster.template())
        for stream in settings.streams:
            record = self.records.get(stream, Record())
            self.records[stream] = adopt(record, self._seen(stream), template=template, now=now)
        nodes, prometheus = self._nodes()
        moves = self._move_as_asked(nodes, now)
        snapshot = placement.Snapshot(now, nodes, settings.streams, settings.home, prometheus=not prometheus)
        planned = placement.plan(snapshot, self._remembered(now), settings.policy)
        self._histories = planned.state.histories
        self.picture = Picture(
            nodes,
            planned.verdicts,
            {
                each.stream: Wanted(
                    each.node,
                    moves.get(each.stream, each.reason),
                    insisted=_is_barred(planned.state.placements.get(each.stream), now),
                )
                for each in planned.decisions
            },
            prometheus,
            template,
        )
        for stream in settings.streams:
            policy = planned.state.placements.get(stream)
            self.records[stream] = replace(self.records[stream], policy=policy)
        metrics.show_verdicts(planned.verdicts.values())

    def see_jobs(self) -> None:
        """See how the analyzers' Jobs are now, between two looks."""
        self.jobs = self._cluster.jobs()

    def follow(self) -> None:
        """Bring every stream a step on, by what was seen last of Jobs and what analyzers say."""
        watched_since = self._board.synced_since
        if watched_since is None:
            return
        now, wanted = self._clock(), self.picture.wanted
        nodes = {node.name: node for node in self.picture.nodes}
        steps: dict[str, Step] = {}
        ended: list[str] = []
        renewing = self.unsettled
        for stream in sorted({*self.records, *self.jobs}):
            record, seen = self.records.get(stream, Record()), self._seen(stream)
            if stream in wanted:
                steps[stream] = step(
                    record,
                    seen,
                    # One at a time is renewed: it has two analyzers meanwhile.
                    replace(_on_node(wanted[stream], nodes), template=self.picture.template, renew=not renewing),
                    now=now,
                    ready_timeout_s=self._settings.ready_timeout,
                    watched_since=watched_since,
                )
                renewing = renewing or steps[stream].record.pending is not None
            elif stream not in self._settings.streams:
                steps[stream], all_ended = retire(record, seen, now=now)
                ended += [stream] if all_ended else []
        before = dict(self.records)
        self.records.update({stream: each.record for stream, each in steps.items()})
        self._save()
        self._assign()
        trouble: list[ClusterError] = []
        for stream, each in steps.items():
            self._tell_what_changed(stream, before.get(stream, Record()), each.record)
            try:
                self._carry_out(stream, each)
            except ClusterError as error:
                trouble.append(error)  # what keeps one stream back is none of the others' business
        for stream in ended:
            self._end(stream)
        self._save()
        if trouble:
            raise trouble[0]

    def _nodes(self) -> tuple[tuple[placement.Node, ...], str]:
        """Return home and workers with their loads, and why Prometheus does not answer."""
        label, _, value = self._settings.worker_label.partition("=")
        home, listed = self._settings.home, self._cluster.nodes()
        ours = [
            node
            for node in listed
            if node["metadata"]["name"] == home or (node["metadata"].get("labels") or {}).get(label) == value
        ]
        states = [node_state(node) for node in ours]
        known = [
            load.Node(state.name, node_address(node), worker=state.name != home)
            for state, node in zip(states, ours, strict=True)
        ]
        try:
            report = load.read_loads(
                self._prometheus, self._settings.metrics, known, scrape_interval_s=self._settings.scrape_interval
            )
        except load.PrometheusError as error:
            return tuple(states), str(error)
        return tuple(nodes_of(report, states)), ""

    def _remembered(self, now: float) -> placement.State:
        """Return what the policy remembers, by what has come of its decisions: loads move only when analyzers do."""
        histories, placements = dict(self._histories), {}
        arriving = now - 0.9 * self._settings.policy.settle_s
        for stream, record in self.records.items():
            if record.policy is None:
                continue
            placements[stream] = record.policy
            if record.pending is not None:
                placements[stream] = replace(record.policy, since=max(record.policy.since, arriving))
                left = record.assigned.node if record.assigned else ""
                if left in histories and left != record.pending.node:
                    histories[left] = replace(histories[left], since_relief=0)
        return placement.State(histories, placements)

    def _move_as_asked(self, nodes: tuple[placement.Node, ...], now: float) -> dict[str, str]:
        """Take what people ask for into the records; return the reason of each such move, by stream."""
        takes = {node.name for node in nodes if node.ready and not node.tainted}
        reasons = {}
        for stream, node in self._asked.items():
            record = self.records.get(stream)
            if record is None or stream not in self._settings.streams or node not in takes:
                log.warning("asked to move %s to %s: that is no stream, or no node that takes streams", stream, node)
                continue
            self.records[stream] = asked(record, node, now=now)
            reasons[stream] = "a person asked for it"
        return reasons

    def _seen(self, stream: str) -> Seen:
        states = self._board.states(stream)
        assignment = self._board.assignment(stream)
        return Seen(
            jobs=self.jobs.get(stream, {}),
            states={epoch: state for epoch, (state, _) in states.items()},
            said_at={epoch: at for epoch, (_, at) in states.items()},
            assignment=assignment,
        )

    def _carry_out(self, stream: str, what: Step) -> None:
        for epoch in what.delete:
            self._cluster.delete_job(stream, epoch)
        for epoch in what.forget:
            self._board.forget_state(stream, epoch)
        if what.create is not None:
            self._create(stream, what.create)

    def _create(self, stream: str, placed: Placed) -> None:
        try:
            job = render(self._cluster.template(), stream=stream, epoch=placed.epoch, node=placed.node)
            self._cluster.create_job(job)
        except (TemplateError, RefusedError) as error:
            before = self.records[stream]
            self.records[stream] = refused(before, str(error), now=self._clock())
            self._tell_what_changed(stream, before, self.records[stream])

    def _assign(self) -> None:
        for stream, record in self.records.items():
            held = self._board.assignment(stream)
            if record.assigned is not None:
                self._board.assign(stream, record.assigned.epoch, record.assigned.node or None)
            elif held is not None and held.epoch > record.last_epoch:
                # Not ours, and the analyzers that are to come would leave the stream to it.
                self._board.withdraw(stream)

    def _end(self, stream: str) -> None:
        """Forget a stream whose analyzers have ended."""
        for epoch in self.jobs.get(stream, {}):
            self._cluster.delete_job(stream, epoch)
        self._board.forget_stream(stream)
        self.records.pop(stream, None)
        log.info("stream %s has ended: its queue at the broker is gone, its Pi keeps what is not committed", stream)

    def _tell_what_changed(self, stream: str, before: Record, after: Record) -> None:
        """Log what happened to a stream, and write it as an Event."""
        pending, assigned = after.pending, after.assigned
        if pending is not None and pending != before.pending:
            come_from = f"from {before.assigned.node} " if before.assigned and before.assigned.node else ""
            self._tell(stream, pending, "Moving", f"{stream} goes {come_from}to {pending.node}: {pending.reason}")
        if assigned is not None and assigned != before.assigned and assigned.node:
            self._tell(stream, assigned, "Assigned", f"{stream} is on {assigned.node}")
            metrics.ASSIGNMENTS.labels(stream, assigned.node).inc()
            if before.pending is not None:
                metrics.READY_SECONDS.observe(assigned.since - before.pending.since)
        if after.problem and after.problem != before.problem:
            failed = before.pending or before.assigned or Placed(after.last_epoch, "", self._clock(), "")
            self._tell(stream, failed, "Failed", f"{stream}: {after.problem}", warning=True)
            metrics.FAILURES.labels(stream).inc()

    def _tell(self, stream: str, placed: Placed, reason: str, message: str, *, warning: bool = False) -> None:
        log.log(logging.WARNING if warning else logging.INFO, "%s", message)
        try:
            self._cluster.tell(stream, placed.epoch, reason=reason, message=message, warning=warning)
        except ClusterError as error:
            log.debug("no Event: %s", error)  # it is in the log, which is what counts

    def _load(self) -> None:
        """Read the ConfigMap, which others may have changed."""
        placements = self._cluster.placements()
        self._version, self._texts, self._asked = placements.version, dict(placements.texts), dict(placements.asked)
        self.records = {stream: self._read(stream, text) for stream, text in placements.texts.items()}

    def _read(self, stream: str, text: str) -> Record:
        try:
            return clamp(records.read(stream, text), now=self._clock())
        except records.RecordError as error:
            log.warning("%s: begun anew, from what the broker has", error)
            return Record()

    def _save(self) -> None:
        """Write the records down, before anything is done by them.

        Raises ConflictError where somebody changed the ConfigMap meanwhile: then nothing is done, and it is read anew.
        """
        texts = {stream: records.write(record) for stream, record in self.records.items()}
        if texts != self._texts or self._asked:
            self._version = self._cluster.save_placements(texts, self._version)
            self._texts, self._asked = texts, {}


def _on_node(wanted: Wanted, nodes: Mapping[str, placement.Node]) -> Wanted:
    node = nodes.get(wanted.node or "")
    return replace(wanted, ready=node is not None and node.ready, cordoned=node is not None and node.cordoned)


def _is_barred(placed: placement.Placement | None, now: float) -> bool:
    return placed is not None and placed.barred.get(placed.node, 0.0) > now


def _digest(template: object) -> str:
    if not isinstance(template, Mapping) or template.get("kind") != "Job":
        return ""
    return hashlib.sha256(json.dumps(template, sort_keys=True, default=str).encode()).hexdigest()[:12]
