"""The jobs for the alerts part: those of this daemon's probes, or those in a shared database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from monitor.alerts.jobs import JobFacts
from monitor.backoff import Backoff
from monitor.errors import MonitorError
from monitor.files.threads import call_aside
from monitor.log_limits import OutageLog
from monitor.store import RETRY_S
from monitor.yielding import in_slices

if TYPE_CHECKING:
    from monitor.probes.job import Job
    from monitor.probes.part import Probes
    from monitor.probes.source import JobList
    from monitor.store import Store

__all__ = ["NoJobs", "ProbesJobs", "TableJobs"]

logger = logging.getLogger("monitor.alerts")


class NoJobs:
    """No jobs are known: results have to say enough."""

    async def run(self) -> None:
        """Do nothing until cancelled."""
        await asyncio.Event().wait()

    def all(self) -> Mapping[int, JobFacts] | None:
        """Return None."""
        return None


class ProbesJobs:
    """The jobs of the probes in this daemon, including those of other producers."""

    def __init__(self, probes: Callable[[], Probes | None]) -> None:
        self._probes = probes
        self._listed: tuple[JobList, frozenset[int]] | None = None
        self._facts: Mapping[int, JobFacts] = {}

    async def run(self) -> None:
        """Do nothing until cancelled: the probes follow their source."""
        await asyncio.Event().wait()

    def all(self) -> Mapping[int, JobFacts] | None:
        """Return the jobs; the same object until something changes."""
        probes = self._probes()
        if probes is None or probes.runner is None:
            return None
        listed = probes.jobs
        stopped = frozenset(probes.runner.stopped) | listed.stopped
        known = self._listed
        if known is None or known[0] is not listed or known[1] != stopped:
            self._facts = _facts(listed.jobs, stopped)
            self._listed = listed, stopped
        return self._facts


class TableJobs:
    """The jobs in the database, for a daemon without probes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._facts: Mapping[int, JobFacts] | None = None

    async def run(self) -> None:
        """Load the jobs, and again after each change."""
        from monitor.probes.jobs_table import DatabaseJobs

        source = DatabaseJobs(self._store)
        outage = OutageLog(logger, outcome="keeping the current jobs")
        backoff = Backoff(*RETRY_S)
        while True:
            try:
                listed = await source.load()
            except MonitorError as error:
                outage.failed(f"cannot load the jobs: {error}", cause=error)
                await asyncio.sleep(backoff.next_delay())
                continue
            outage.recovered("jobs loaded again")
            backoff.reset()
            self._facts = await call_aside(_facts, listed.jobs, listed.stopped)
            await source.changed()

    def all(self) -> Mapping[int, JobFacts] | None:
        """Return the jobs; None until they are loaded, and if there are none in the table."""
        return self._facts or None


def _facts(jobs: Iterable[Job], stopped: frozenset[int]) -> dict[int, JobFacts]:
    return {
        job.id: JobFacts(
            id=job.id,
            name=job.name,
            url=job.shown_url,
            interval=job.interval,
            timeout=job.timeout,
            retries=job.retries,
            tags=tuple(getattr(job, "tags", ())),
            depends_on=tuple(getattr(job, "depends_on", ())),
            running=job.active and job.id not in stopped,
        )
        for job in in_slices(jobs)
    }
