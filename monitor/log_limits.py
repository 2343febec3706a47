"""Limits on log lines that would repeat: of an outage, and of what peers do wrong."""

from __future__ import annotations

import logging
import time

__all__ = ["OutageLog", "RateLimitedLog"]

# Of one outage; what fails may put a number or a time into its text.
_MAX_PROBLEMS = 10


class OutageLog:
    """Logs that something fails when it begins to, and once that it works again.

    A problem is logged the first time in an outage, however often it is tried again. A line is
    ``subject``, the problem, and ``outcome``: what the daemon does about it.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        subject: str = "",
        outcome: str = "trying again",
        level: int = logging.WARNING,
    ) -> None:
        self._logger = logger
        self._subject = f"{subject}: " if subject else ""
        self._outcome = outcome
        self._level = level
        self._logged: set[str] = set()
        self.problem: str | None = None
        """What is wrong now, for a part's state; None while all is well."""

    @property
    def summary(self) -> str:
        """The problem and the outcome, for a part's state."""
        return f"{self.problem}; {self._outcome}"

    def failed(self, problem: str, *, level: int | None = None) -> None:
        """Note a problem, and log it if it is new in this outage."""
        self.problem = problem
        if problem not in self._logged and len(self._logged) < _MAX_PROBLEMS:
            self._logged.add(problem)
            level = self._level if level is None else level
            self._logger.log(level, "%s%s; %s", self._subject, problem, self._outcome)

    def recovered(self, text: str) -> None:
        """Log ``text`` if there was a problem."""
        if self.problem is not None:
            self._logger.info("%s%s", self._subject, text)
            self.problem = None
            self._logged.clear()


class RateLimitedLog:
    """A logger for what peers do wrong: some lines a kind, then one that counts the rest.

    ``kind`` comes from a fixed set in the code, never from a peer, so that memory is bounded.
    """

    def __init__(self, logger: logging.Logger, *, lines: int = 5, period_s: float = 60.0) -> None:
        self._logger = logger
        self._lines = lines
        self._period_s = period_s
        self._kinds: dict[str, tuple[float, int]] = {}  # kind -> (period's start, lines in it)

    def warning(self, kind: str, text: str, *args: object) -> None:
        """Log a warning of this kind, unless there were too many of it in this period."""
        self.log(logging.WARNING, kind, text, *args)

    def info(self, kind: str, text: str, *args: object) -> None:
        """The same as information."""
        self.log(logging.INFO, kind, text, *args)

    def log(
        self, level: int, kind: str, text: str, *args: object, now: float | None = None
    ) -> None:
        """Log at ``level``; ``now`` in s on a clock that does not go back."""
        if not self._logger.isEnabledFor(level):
            return
        now = time.monotonic() if now is None else now
        start, count = self._kinds.get(kind, (now, 0))
        if now - start >= self._period_s:
            if count > self._lines:
                self._logger.log(
                    level, "%s: %d more in %d s", kind, count - self._lines, now - start
                )
            start, count = now, 0
        self._kinds[kind] = (start, count + 1)
        if count < self._lines:
            self._logger.log(level, text, *args)
        elif count == self._lines:
            self._logger.log(level, "%s: too many of these for a line each; counting on", kind)
