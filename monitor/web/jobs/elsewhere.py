"""Reads from the database what other locations say of the sites.

Every location has the same sites, so a daemon's own results are only a part of what is known. The
aggregation writes those of all locations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from monitor.messages import Result
from monitor.probes.job import Job
from monitor.store import Store
from monitor.web.jobs.history import results_after, silent_after
from monitor.yielding import over_turns

__all__ = ["Elsewhere"]

_FRESH_S = 2.0
_TIMEOUT_S = 5.0
_JOBS_AT_ONCE = 500


class Elsewhere:
    """Reads the results of all locations since it last read them, at most every two seconds."""

    def __init__(self, store: Store, *, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        # By job, when the last result of each location was due.
        self._newest: dict[int, dict[str, float]] = {}
        self._read_at = -_FRESH_S

    async def refresh(self, jobs: Iterable[Job]) -> list[Result]:
        """Return the results that are new, in order; raises MonitorError."""
        if time.monotonic() - self._read_at < _FRESH_S:
            return []
        silent_s = {job.id: silent_after(job) async for job in over_turns(jobs) if job.active}
        for job_id in self._newest.keys() - silent_s.keys():
            del self._newest[job_id]
        found = await self.read(silent_s)
        self._read_at = time.monotonic()
        return found

    async def read(self, silent_s: Mapping[int, float]) -> list[Result]:
        """Return the new results of these jobs; locations that are silent for longer are left."""
        now = self._now()
        after = {}
        async for job_id, silent in over_turns(silent_s.items()):
            known = [at for at in self._newest.get(job_id, {}).values() if at > now - silent]
            # A location whose results come late may be behind the others.
            after[job_id] = min(known, default=now - silent)
        new = []
        ids = list(after)
        for start in range(0, len(ids), _JOBS_AT_ONCE):
            some = {job_id: after[job_id] for job_id in ids[start : start + _JOBS_AT_ONCE]}
            for result in await self._store.read(
                partial(results_after, after=some), timeout=_TIMEOUT_S
            ):
                newest = self._newest.setdefault(result.job_id, {})
                if result.location and newest.get(result.location, -1.0) < result.scheduled_at:
                    newest[result.location] = result.scheduled_at
                    new.append(result)
        return new
