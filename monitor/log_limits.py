"""Limits for repeated log lines: of outages, and of faults of peers."""

from __future__ import annotations

import logging
import time

from monitor.errors import MonitorError

__all__ = ["OutageLog", "RateLimitedLog"]

# Problems per outage that are logged; texts may contain numbers or times.
_MAX_PROBLEMS = 10


class OutageLog:
    """Logs an outage when it begins, and once when it is over.

    During an outage each problem is logged once, not at each retry. A line has the ``subject``, the
    problem, and the ``outcome``: what the daemon does about it. In the first ``settle_s`` seconds,
    only the first problem is logged: a server that restarts has several in a row.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        subject: str = "",
        outcome: str = "trying again",
        level: int = logging.WARNING,
        settle_s: float = 0.0,
    ) -> None:
        self._logger = logger
        self._settle_s = settle_s
        self._since = 0.0
        self._subject = f"{subject}: " if subject else ""
        self._outcome = outcome
        self._level = level
        self._logged: set[str] = set()
        self.problem: str | None = None
        """The current problem, for the state of a part; None without an outage."""

    @property
    def summary(self) -> str:
        """Problem and outcome, for the state of a part."""
        return f"{self.problem}; {self._outcome}"

    def failed(
        self, problem: str, *, level: int | None = None, cause: BaseException | None = None
    ) -> None:
        """Report a problem; logs it if it is new in this outage.

        Not if its ``cause`` is an error that is logged already.
        """
        if self.problem is None:
            self._since = time.monotonic()
        self.problem = problem
        if isinstance(cause, MonitorError) and cause.logged:
            return
        if self._logged and time.monotonic() < self._since + self._settle_s:
            return
        if problem not in self._logged and len(self._logged) < _MAX_PROBLEMS:
            self._logged.add(problem)
            level = self._level if level is None else level
            self._logger.log(level, "%s%s; %s", self._subject, problem, self._outcome)

    def recovered(self, text: str) -> None:
        """End the outage, if there is one, and log ``text`` if its begin was logged."""
        if self._logged:
            self._logger.info("%s%s", self._subject, text)
        self.problem = None
        self._logged.clear()


class RateLimitedLog:
    """A logger for faults of peers: some lines per kind and period, then one with the count.

    ``kind`` is from a fixed set in the code, never from a peer, so that memory is bounded.
    """

    def __init__(self, logger: logging.Logger, *, lines: int = 5, period_s: float = 60.0) -> None:
        self._logger = logger
        self._lines = lines
        self._period_s = period_s
        self._kinds: dict[str, tuple[float, int]] = {}  # kind -> (start of the period, lines in it)

    def warning(self, kind: str, text: str, *args: object) -> None:
        """Log a warning, unless there were too many of this kind in this period."""
        self.log(logging.WARNING, kind, text, *args)

    def info(self, kind: str, text: str, *args: object) -> None:
        """Log at INFO; as :meth:`warning`."""
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
            self._logger.log(level, "%s: too many of these; only counting them now", kind)
