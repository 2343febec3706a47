"""Logs each site that goes down, comes up again, or stays down at its first result."""

from __future__ import annotations

import logging

from monitor.log_limits import RateLimitedLog
from monitor.messages import Result

__all__ = ["Turns"]

logger = logging.getLogger("monitor.probes")

# An outage of a network takes down all sites at once.
_LINES = 200
_PERIOD_S = 30.0
_MOST_TEXT = 300


class Turns:
    """The last state of each job, and a log line for each change."""

    def __init__(self) -> None:
        self._log = RateLimitedLog(logger, lines=_LINES, period_s=_PERIOD_S)
        # By job, since when it is down (s since the epoch); None: up.
        self._down_since: dict[int, float | None] = {}

    def take(self, result: Result, name: str) -> None:
        """Take a result of the job of that name."""
        before = self._down_since.get(result.job_id, ...)
        since = before if isinstance(before, float) else None
        self._down_since[result.job_id] = (
            None if result.up else since if since is not None else result.checked_at
        )
        if result.up == (since is None):
            return
        title = f"job {result.job_id} ({_printable(name)})"
        if since is None:
            self._log.warning("went down", "%s is down: %s", title, _printable(result.error or ""))
        else:
            lasted = max(0, round(result.checked_at - since))
            self._log.info("came up", "%s is up again after %d s", title, lasted)

    def forget(self, job_id: int) -> None:
        """Forget a job that is gone."""
        self._down_since.pop(job_id, None)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_MOST_TEXT])
