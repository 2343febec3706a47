"""The jobs of producers elsewhere, read from the PostgreSQL database that they share.

A daemon without probes can show them, too: the sites are rows, and so are the results that the
aggregation writes. Nothing is read before the first request. From then on the daemon follows
changes of the sites, and reads results on request, at most once in a short while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from monitor.backoff import Backoff
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.messages import Result
from monitor.probes.jobs_table import DatabaseJobs
from monitor.probes.source import JobList
from monitor.store import RETRY_S, Connection, Store
from monitor.web.jobs.elsewhere import Elsewhere
from monitor.web.jobs.history import latest_results, results_before, silent_after
from monitor.yielding import over_turns

__all__ = ["SharedJobs"]

logger = logging.getLogger("monitor.web")

# For how long results are recent enough.
_FRESH_S = 2.0
_TIMEOUT_S = 5.0
# How far back to look for the last result of a job, at least.
_LOOK_BACK_S = 86400.0
# Results of one job between two reads: enough to know when it went up or down.
_MOST_BETWEEN = 1000
_JOBS_AT_ONCE = 2000


class SharedJobs:
    """Jobs and results of the database, in place of this daemon's probes.

    ``on_result`` is called with the newest result of each job; if the job went up or down, it is
    called before with the results since the last one.
    """

    source = "database"
    runner = None

    def __init__(self, store: Store, *, now: Callable[[], float] = time.time) -> None:
        self.jobs = JobList(())
        self.on_result: Callable[[Result], None] = lambda _: None
        self._store = store
        self._source = DatabaseJobs(store)
        self._now = now
        self._newest: dict[int, Result] = {}
        self._asked = asyncio.Event()
        self._refreshing = asyncio.Lock()
        self._read_at = -_FRESH_S
        self._elsewhere = Elsewhere(store, now=now)

    @property
    def located(self) -> bool:
        """Whether sites are checked from locations whose results are read apart: not here."""
        return False

    async def run(self) -> None:
        """Follow changes of the sites, from the first :meth:`refresh` on, until cancelled."""
        await self._asked.wait()
        outage = OutageLog(logger, outcome="keeping the previous sites")
        backoff = Backoff(*RETRY_S)
        while True:
            if outage.problem is None:
                await self._source.changed()
            try:
                self.jobs = await self._source.load()
                outage.recovered("sites loaded again")
                backoff.reset()
            except MonitorError as error:
                outage.failed(f"cannot load the sites: {error}", cause=error)
                await asyncio.sleep(backoff.next_delay())

    async def refresh(self) -> None:
        """Return once the results are at most 2 s old; raises MonitorError."""
        async with self._refreshing:
            if time.monotonic() - self._read_at < _FRESH_S:
                return
            if not self._asked.is_set():
                self.jobs = await self._source.load()
                self._asked.set()
            ids = [job.id for job in self.jobs.jobs]
            for job_id in self._newest.keys() - set(ids):
                del self._newest[job_id]
            for start in range(0, len(ids), _JOBS_AT_ONCE):
                await self._read(ids[start : start + _JOBS_AT_ONCE])
            self._read_at = time.monotonic()

    async def asked(self) -> None:
        """Wait for the first request."""
        await self._asked.wait()

    async def _read(self, ids: list[int]) -> None:
        now = self._now()
        known = self._newest
        intervals = {job.id: job.interval for job in self.jobs.jobs}
        after = {
            job_id: known[job_id].scheduled_at
            if job_id in known
            else now - max(_LOOK_BACK_S, 2 * intervals[job_id])
            for job_id in ids
        }
        found = await self._store.read(partial(latest_results, after=after), timeout=_TIMEOUT_S)
        for result in found:
            if result.location:
                known[result.job_id] = result
        # Another location's result of the same time may come later.
        located = {job_id for job_id in ids if job_id in known and known[job_id].location}
        if located:
            jobs = {job.id: silent_after(job) for job in self.jobs.jobs if job.id in located}
            async for result in over_turns(await self._elsewhere.read(jobs)):
                self.on_result(result)
            found = [each for each in found if each.job_id not in located]
        turned = {
            result.job_id: known[result.job_id]
            for result in found
            if result.job_id in known and known[result.job_id].up != result.up
        }
        if turned:
            between = await self._store.read(partial(_between, since=turned), timeout=_TIMEOUT_S)
            async for result in over_turns(between):
                self.on_result(result)
        async for result in over_turns(found):
            known[result.job_id] = result
            self.on_result(result)


def _between(connection: Connection, *, since: dict[int, Result]) -> list[Result]:
    """Return all results of jobs after the given one of each, oldest first."""
    results = []
    for job_id, last in since.items():
        found = results_before(
            connection,
            job_id,
            since=last.scheduled_at,
            until=float("inf"),
            before=None,
            limit=_MOST_BETWEEN,
        )
        results += [result for result in reversed(found) if result != last]
    return results
