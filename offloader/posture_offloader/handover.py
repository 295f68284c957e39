"""How a stream gets to the node that the policy wants it on, a step at a time. Pure.

    (none) --> pending ------------------------> assigned -----------------> (replaced by the next)
               a Job of the next epoch warms up   it owns the stream          finishes what is in work, ends
                  |
                  `-- fails, is late, is not wanted any more: its Job goes, and the assigned one never noticed

A step is worked out from what is remembered (the record) and what is seen (Jobs, and the states that analyzers say).
The record is written down before anything is done, and everything that is done can be done again: an offloader that is
killed between any two of these goes on where it stopped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from posture_common.epochs import EPOCH_MAX, Assignment, State
from pydantic import Field

from posture_edge.placement import Placement

Remembered = Annotated[int, Field(ge=0, le=EPOCH_MAX // 2)]
"""An epoch in a record; one that is larger has come from somebody else, and what follows it may not reach the end."""

LEAVE_S = 30.0
"""How long a replaced analyzer may take to finish what is in work and end by itself."""
SETTLED_S = 60.0
"""An analyzer that owned its stream for so long did not fail for a reason that the next one would meet at once."""
GONE_S = 60.0
"""An analyzer that the broker has not heard of for so long is given up, whatever Kubernetes knows of its pod."""
BARRED_S = 300.0
"""How long a stream stays away from a node where its analyzer did not get ready."""
INSISTED = 2
"""So often in a row an analyzer may fail on a node that has no other of the stream before another node is tried."""
AHEAD_MAX = 10**6
"""So far beyond what is remembered an epoch of which the broker or a Job tells may be: they make up for a record that
was lost, and an epoch that nobody can have reached is not remembered.
"""
_DELAY_S, _DELAY_MAX_S = 5.0, 300.0
_HOLD_MAX_S = 3600.0
_LONGEST = 300  # of a text: all records have to fit into one ConfigMap


@dataclass(frozen=True)
class Placed:
    """One placement of a stream: the epoch that it begins, its node, since when (seconds since 1970) and why.

    `template` is a digest of what its Job was made of.
    """

    epoch: Remembered
    node: str
    since: float
    reason: str
    template: str = ""


@dataclass(frozen=True)
class Record:
    """What is remembered of a stream.

    `policy` is what the policy remembers of it. `failures` in a row delay the next try on the node `failed_on` until
    `retry_at`; `counted` is the assigned epoch whose end was counted last, `problem` says what failed.
    """

    assigned: Placed | None = None
    pending: Placed | None = None
    last_epoch: Remembered = 0
    policy: Placement | None = None
    failures: int = 0
    counted: int = 0
    failed_on: str = ""
    retry_at: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Job:
    """A Job as it is in the cluster; `problem` says why its pod does not run, empty where it does."""

    finished: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Seen:
    """What is seen of a stream, by epoch."""

    jobs: Mapping[int, Job] = field(default_factory=dict)
    states: Mapping[int, State] = field(default_factory=dict)
    said_at: Mapping[int, float] = field(default_factory=dict)  # when each state was heard
    assignment: Assignment | None = None  # that the broker has retained


@dataclass(frozen=True)
class Wanted:
    """Where the policy wants a stream (None: nowhere yet), and why.

    `template` is a digest of what Jobs are made of now, empty where that is unknown; `renew` says whether a stream that
    was made of another may get its next epoch only for that. `ready` and `cordoned` are the node's; `insisted`: the
    policy keeps to it although it was told to find another.
    """

    node: str | None
    reason: str
    template: str = ""
    renew: bool = False
    ready: bool = True
    cordoned: bool = False
    insisted: bool = False


@dataclass(frozen=True)
class Step:
    """The new record, and what is to be done once it is written down."""

    record: Record
    create: Placed | None = None
    delete: tuple[int, ...] = ()
    forget: tuple[int, ...] = ()
    """Epochs whose retained state is of no use any more."""


def step(
    record: Record, seen: Seen, wanted: Wanted, *, now: float, ready_timeout_s: float, watched_since: float = 0.0
) -> Step:
    """Return a stream's next step. `watched_since`: since when the analyzers' states are seen without a gap."""
    if record.pending is not None:
        record = _follow(record, record.pending, seen, wanted, now, ready_timeout_s, watched_since)
    if record.pending is None:
        record = _begin(record, seen, wanted, now)
    pending = record.pending
    return Step(
        record,
        create=pending if pending is not None and pending.epoch not in seen.jobs else None,
        delete=_overdue(record, seen, now),
        forget=_forgotten(record, seen),
    )


def retire(record: Record, seen: Seen, *, now: float) -> tuple[Step, bool]:
    """Return the next step of a stream that is not wanted any more, and whether all of its analyzers have ended.

    An assignment without a node ends them, each when what is in work is committed.
    """
    if record.assigned is None or record.assigned.node or record.pending is not None:
        epoch = _highest(record, seen) + 1
        end = Placed(epoch, "", now, "its Pi is not in the inventory any more")
        record = replace(record, assigned=end, pending=None, last_epoch=epoch, policy=None)
    ended = all(job.finished for job in seen.jobs.values())
    return Step(record, delete=_overdue(record, seen, now), forget=_forgotten(record, seen)), ended


def adopt(record: Record, seen: Seen, *, template: str, now: float) -> Record:
    """Return the record with the analyzer that has the stream, where it was lost what is known of that."""
    held = seen.assignment
    if record.assigned is not None or record.pending is not None or held is None or held.node is None:
        return record
    if seen.jobs.get(held.epoch, Job(finished=True)).finished:
        return record
    assigned = Placed(held.epoch, held.node, now, "it was there already", template)
    policy = record.policy or Placement(held.node, now)
    return replace(record, assigned=assigned, last_epoch=max(held.epoch, _highest(record, seen)), policy=policy)


def clamp(record: Record, *, now: float) -> Record:
    """Return the record without times that lie further ahead than they can: a clock was wrong when it was written."""
    policy = record.policy
    if policy is not None:
        barred = {node: min(until, now + _HOLD_MAX_S) for node, until in policy.barred.items()}
        came_home = None if policy.came_home is None else min(policy.came_home, now)
        policy = replace(policy, since=min(policy.since, now), barred=barred, came_home=came_home)
    return replace(
        record,
        assigned=_not_ahead(record.assigned, now),
        pending=_not_ahead(record.pending, now),
        policy=policy,
        retry_at=min(record.retry_at, now + _DELAY_MAX_S),
    )


def _not_ahead(placed: Placed | None, now: float) -> Placed | None:
    return None if placed is None else replace(placed, since=min(placed.since, now))


def refused(record: Record, problem: str, *, now: float) -> Record:
    """Return the record after the cluster did not take the pending epoch's Job."""
    return record if record.pending is None else _failed(record, record.pending, problem, now)


def asked(record: Record, node: str, *, now: float) -> Record:
    """Return the record after a person asked for the stream to be on that node: the policy takes it for a move."""
    before = record.policy
    if before is None:
        return replace(record, policy=Placement(node, now))
    if before.node == node:
        return record
    barred = {**before.barred, before.node: now + BARRED_S}
    barred.pop(node, None)
    return replace(record, policy=Placement(node, now, moved=True, barred=barred, home_hold_s=before.home_hold_s))


def _follow(
    record: Record,
    pending: Placed,
    seen: Seen,
    wanted: Wanted,
    now: float,
    ready_timeout_s: float,
    watched_since: float,
) -> Record:
    """Return the record once the pending epoch is ready, failed, late or not wanted; unchanged before."""
    job = seen.jobs.get(pending.epoch, Job())
    if wanted.node != pending.node:
        return replace(record, pending=None)
    if job.finished:
        return _failed(record, pending, job.problem or "its analyzer ended before it was ready", now)
    if pending.epoch in seen.jobs and seen.states.get(pending.epoch) in (State.READY, State.ACTIVE):
        policy = record.policy
        if policy is not None:
            # Its load comes only now, and that of where it was goes.
            barred = {node: until for node, until in policy.barred.items() if node != pending.node}
            policy = replace(policy, since=now, barred=barred)
        return replace(record, assigned=replace(pending, since=now), pending=None, policy=policy, problem="")
    if wanted.template not in ("", pending.template):
        return replace(record, pending=None)  # What it is made of has been corrected, perhaps because of it.
    if now - max(pending.since, watched_since) > ready_timeout_s:
        why = f": {job.problem}" if job.problem else ""
        return _failed(record, pending, f"its analyzer was not ready within {ready_timeout_s:g} s{why}", now)
    return record


def _begin(record: Record, seen: Seen, wanted: Wanted, now: float) -> Record:
    """Return the record with the next epoch pending, where one is due."""
    assigned, reason = record.assigned, wanted.reason
    if assigned is not None and wanted.node == assigned.node:
        end = _end_of(assigned, seen, now)
        if end is not None:
            record = _ended(record, assigned, end, now)
            if wanted.cordoned and not wanted.insisted:
                return _barring(record, assigned.node, now)  # as after `kubectl drain`: the policy looks for another
            reason = f"its analyzer on {assigned.node} {end}"
        elif not wanted.renew or wanted.template in ("", assigned.template):
            settled = record.failures and now - assigned.since > SETTLED_S
            return replace(record, failures=0) if settled else record
        else:
            reason = "what its Job is made of has changed"
    if wanted.node is None or not wanted.ready or (wanted.node == record.failed_on and now < record.retry_at):
        return record
    epoch = _highest(record, seen) + 1
    pending = Placed(epoch, wanted.node, now, reason[:_LONGEST], wanted.template)
    return replace(record, pending=pending, last_epoch=epoch)


def _end_of(assigned: Placed, seen: Seen, now: float) -> str | None:
    """Return how the assigned epoch's analyzer came to its end, None while it lives."""
    job, epoch = seen.jobs.get(assigned.epoch), assigned.epoch
    if job is None:
        return "is gone, with its Job"
    if job.finished:
        return f"ended: {job.problem}" if job.problem else "ended"
    if seen.states.get(epoch) is State.GONE and now - seen.said_at.get(epoch, now) > GONE_S:
        return f"was not heard of for {GONE_S:g} s"
    return None


def _ended(record: Record, assigned: Placed, end: str, now: float) -> Record:
    """Return the record after the assigned epoch's analyzer ended by itself, counted once."""
    if record.counted == assigned.epoch:
        return record
    early = now - assigned.since < SETTLED_S
    failures = record.failures + 1 if early else 0
    return replace(
        record,
        counted=assigned.epoch,
        failures=failures,
        failed_on=assigned.node,
        retry_at=now + _delay_s(failures),
        problem=f"{assigned.node}: its analyzer {end}"[:_LONGEST],
    )


def _failed(record: Record, pending: Placed, problem: str, now: float) -> Record:
    failures = record.failures + 1
    assigned, policy = record.assigned, record.policy
    record = replace(
        record,
        pending=None,
        failures=failures,
        failed_on=pending.node,
        retry_at=now + _delay_s(failures),
        problem=f"{pending.node}: {problem}"[:_LONGEST],
    )
    if assigned is not None and policy is not None and assigned.node not in ("", pending.node):
        # It has a place, so it need not insist on this one; the policy goes on from there.
        barred = {**policy.barred, pending.node: now + BARRED_S}
        barred.pop(assigned.node, None)
        back = Placement(assigned.node, now, moved=True, barred=barred, home_hold_s=policy.home_hold_s)
        return replace(record, policy=back)
    lives = assigned is not None and record.counted != assigned.epoch
    return record if lives or failures < INSISTED else _barring(record, pending.node, now)


def _barring(record: Record, node: str, now: float) -> Record:
    """Return the record with the policy told to find another node, where there is one."""
    policy = record.policy
    if policy is None or policy.barred.get(node, 0.0) > now:
        return record
    return replace(record, policy=replace(policy, barred={**policy.barred, node: now + BARRED_S}))


def _delay_s(failures: int) -> float:
    return 0.0 if failures == 0 else float(min(_DELAY_S * 2 ** min(failures - 1, 16), _DELAY_MAX_S))


def _overdue(record: Record, seen: Seen, now: float) -> tuple[int, ...]:
    """Return the epochs whose Jobs are of no use and do not end by themselves."""
    assigned = record.assigned
    leaving = assigned is not None and now - assigned.since <= LEAVE_S
    return tuple(
        epoch
        for epoch, job in sorted(seen.jobs.items())
        if not job.finished
        and epoch not in _in_use(record)
        and not (leaving and assigned is not None and epoch < assigned.epoch)
    )


def _forgotten(record: Record, seen: Seen) -> tuple[int, ...]:
    in_use = _in_use(record)
    return tuple(epoch for epoch in sorted(seen.states) if epoch not in seen.jobs and epoch not in in_use)


def _in_use(record: Record) -> set[int]:
    return {each.epoch for each in (record.assigned, record.pending) if each is not None}


def _highest(record: Record, seen: Seen) -> int:
    retained = 0 if seen.assignment is None else seen.assignment.epoch
    told = [epoch for epoch in (retained, *seen.jobs, *seen.states) if epoch <= record.last_epoch + AHEAD_MAX]
    return max(record.last_epoch, *told, 0)
