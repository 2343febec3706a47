"""Where jobs come from."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from monitor.files.threads import call_aside
from monitor.probes.dependencies import CIRCULAR, Dependents, circular_jobs
from monitor.probes.job import Job
from monitor.yielding import in_slices

__all__ = ["ConfigJobs", "JobList", "JobSource"]


@dataclass(frozen=True, slots=True)
class JobList:
    """Verified jobs with unique ids, and a line for each job that was refused.

    ``stopped`` are the ids of those that were stopped by hand, as far as the source knows. To be
    made in a thread: the rest is derived from the jobs, which takes long for thousands.
    """

    jobs: tuple[Job, ...]
    refused: tuple[str, ...] = ()
    stopped: frozenset[int] = frozenset()
    by_id: Mapping[int, Job] = field(init=False, compare=False, repr=False)
    ids: Sequence[int] = field(init=False, compare=False, repr=False)
    """The ids in order."""
    dependents: Dependents = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        by_id = {job.id: job for job in in_slices(self.jobs)}
        object.__setattr__(self, "by_id", by_id)
        object.__setattr__(self, "ids", sorted(by_id))
        object.__setattr__(self, "dependents", Dependents(in_slices(self.jobs)))

    def without_circles(self, source: str) -> JobList:
        """Return the list with the jobs refused that depend on each other in a circle."""
        circular = circular_jobs(self.jobs)
        if not circular:
            return self
        lines = tuple(f"{source}: job {each}: depends_on: {CIRCULAR}" for each in sorted(circular))
        jobs = tuple(job for job in self.jobs if job.id not in circular)
        return JobList(jobs, (*self.refused, *lines), self.stopped)

    def active(self) -> list[Job]:
        """Return the active jobs in the order of their ids, for shards.

        Stopped ones are included: a stop must not move other jobs to other producers.
        """
        return sorted((job for job in self.jobs if job.active), key=lambda job: job.id)


class JobSource(ABC):
    """Gives the jobs, and notices when they may have changed; used from one task."""

    @abstractmethod
    async def load(self) -> JobList:
        """Read the jobs; blocking work goes off the loop.

        Raises SettingError (with its path below ``probes``) if the source itself is wrong, and
        UnavailableError if its server is unavailable. The caller then keeps the current jobs.
        """

    @abstractmethod
    async def changed(self) -> None:
        """Return as soon as the jobs may differ from those of the last load()."""


class ConfigJobs(JobSource):
    """The jobs in the config; a reload makes another one of these."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = tuple(jobs)

    async def load(self) -> JobList:
        """Return the jobs, which were verified with the config."""
        return await call_aside(JobList, self._jobs)

    async def changed(self) -> None:
        """Never return: only a reload changes the config."""
        await asyncio.get_running_loop().create_future()
