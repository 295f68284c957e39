"""What an analyzer has heard of its stream's epochs, and what follows from it: neither clock nor connection."""

import dataclasses
from collections.abc import Mapping
from enum import Enum, auto
from typing import Self

from posture_common.epochs import ASSIGNMENT, Assignment, MalformedError, State, Status, epoch_of

TAKE_OVER_AFTER_S = 5.0
"""So long an analyzer of an older epoch may take to let go; then it counts as dead or hung."""

HOLDING = {State.ACTIVE, State.DRAINING}


class Step(Enum):
    """What an analyzer has to do by what it has heard."""

    WAIT = auto()
    CONNECT = auto()
    LEAVE = auto()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the analyzer of `epoch` has heard: the newest assignment, and what the stream's analyzers say."""

    epoch: int
    assignment: Assignment | None = None
    states: Mapping[int, State] = dataclasses.field(default_factory=dict)

    def on_message(self, topic: str, payload: bytes) -> Self:
        """Return what is known after a message; `topic` is its part after `posture/streams/<stream>/`.

        Raises:
            MalformedError: the message means nothing; all stays as it was.
        """
        if topic == ASSIGNMENT:
            return self._assigned(payload)
        epoch = epoch_of(topic)
        return self if epoch is None else self._said(epoch, payload)

    def without_states(self) -> Self:
        """Forget what the analyzers said, which the broker tells anew; the assignment stays the last known."""
        return dataclasses.replace(self, states={})

    @property
    def assigned(self) -> bool:
        """Whether the newest assignment is of our epoch."""
        return self.assignment is not None and self.assignment.epoch == self.epoch

    @property
    def successor(self) -> Assignment | None:
        """The newest assignment, where it is of a newer epoch than ours."""
        newest = self.assignment
        return newest if newest is not None and newest.epoch > self.epoch else None

    def step(self, *, assigned_s: float) -> Step:
        """Return what to do, `assigned_s` seconds after the assignment of our epoch was first heard."""
        if self.successor is not None:
            return Step.LEAVE
        if not self.assigned:
            return Step.WAIT
        held = any(epoch < self.epoch and state in HOLDING for epoch, state in self.states.items())
        return Step.WAIT if held and assigned_s < TAKE_OVER_AFTER_S else Step.CONNECT

    def _assigned(self, payload: bytes) -> Self:
        if not payload:
            return self  # cleared
        new = Assignment.parse(payload)
        if new.epoch == self.epoch and new.node is None:
            raise MalformedError(f"it names no node for epoch {new.epoch}")
        # A broker that came back with an old store tells old ones.
        if self.assignment is not None and new.epoch <= self.assignment.epoch:
            return self
        return dataclasses.replace(self, assignment=new)

    def _said(self, epoch: int, payload: bytes) -> Self:
        others = {other: state for other, state in self.states.items() if other != epoch}
        said = {epoch: Status.parse(payload).state} if payload else {}
        return dataclasses.replace(self, states=others | said)
