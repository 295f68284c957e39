"""Pauses between failures in a row, and each cause of them told once."""

import logging

FIRST_S = 0.5
LAST_S = 5.0


class Backoff:
    """The pause doubles with each failure until something has worked; a cause is logged when it is new."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._pause = FIRST_S
        self.problem: str | None = None
        """What failed last, or None when the last thing worked."""

    def failed(self, problem: str, *, then: str = "trying again") -> float:
        """Note a failure and what is done about it; return how many seconds to pause."""
        if problem != self.problem:
            self._log.error("%s; %s", problem, then)
        self.problem = problem
        pause, self._pause = self._pause, min(2 * self._pause, LAST_S)
        return pause

    def reset(self) -> None:
        """Let the next pause be short again."""
        self._pause = FIRST_S

    def worked(self) -> bool:
        """Start anew; return whether something had failed before."""
        self.reset()
        problem, self.problem = self.problem, None
        return problem is not None
