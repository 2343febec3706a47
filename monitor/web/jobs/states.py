"""The states of jobs: the last result of each, and since when it is up or down; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from monitor.messages import Result
from monitor.web.jobs.history import Last

__all__ = ["JobStates"]


class JobStates:
    """What is known about each job, from its results and from the database.

    With ``all_seen`` every result is passed to :meth:`take`: then the first known result is the
    job's first since the start; otherwise it may be any result.
    """

    def __init__(self, *, all_seen: bool) -> None:
        self._all_seen = all_seen
        self._last: dict[int, Result] = {}
        self._since: dict[int, float | None] = {}
        # Jobs that are known to have been in the other state before.
        self._turned: set[int] = set()
        self._restored: set[int] = set()

    def last(self, job_id: int) -> Result | None:
        """Return the last result."""
        return self._last.get(job_id)

    def since(self, job_id: int) -> float | None:
        """Return since when (epoch s) the job is up or down; None if that is not known."""
        return self._since.get(job_id)

    def has_turned(self, job_id: int) -> bool:
        """Return whether the job is known to have been down before it was up, or up before."""
        return job_id in self._turned

    def take(self, result: Result, *, listed: bool) -> bool:
        """Take a new result; return whether the job, if ``listed``, went up or down."""
        job_id = result.job_id
        before = self._last.get(job_id)
        turned = False
        if before is None or before.up != result.up:
            # The first known result of another daemon's job may not be its first.
            known = before is not None or self._all_seen or job_id in self._restored
            self._since[job_id] = result.scheduled_at if known else None
            turned = listed and before is not None
            if turned:
                self._turned.add(job_id)
        self._last[job_id] = result
        return turned

    def missing(self, job_ids: Iterable[int]) -> Sequence[int]:
        """Return the jobs whose past was not restored yet, or of which nothing is known.

        When the database was read, results may have been on their way into it, and a stopped job
        gets no others.
        """
        return [
            job_id for job_id in job_ids if job_id not in self._restored or job_id not in self._last
        ]

    def restore(self, job_id: int, last: Last | None) -> bool:
        """Take what the database has about a job; return whether that is anything."""
        self._restored.add(job_id)
        if last is None:
            return False
        if last.turned:
            self._turned.add(job_id)
        known = self._last.get(job_id)
        if known is None:
            self._last[job_id], self._since[job_id] = last.result, last.since
        elif known.up == last.result.up:  # it has been checked meanwhile
            self._since[job_id] = last.since
        return True

    def forget(self, job_id: int) -> None:
        """Forget a job that no longer exists."""
        self._last.pop(job_id, None)
        self._since.pop(job_id, None)
        self._turned.discard(job_id)
        self._restored.discard(job_id)
