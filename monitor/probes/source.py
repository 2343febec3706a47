"""Where jobs come from."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from monitor.probes.job import Job

__all__ = ["ConfigJobs", "JobList", "JobSource"]


@dataclass(frozen=True, slots=True)
class JobList:
    """All jobs that can run, verified, with ids of their own; and a line for each that can't.

    ``stopped`` are the ids of those that somebody stopped by hand, as far as the source knows.
    """

    jobs: tuple[Job, ...]
    refused: tuple[str, ...] = ()
    stopped: frozenset[int] = frozenset()

    def active(self) -> list[Job]:
        """Return the active jobs in the order of their ids, which shards are cut from.

        Stopped ones are among them: a stop must not move other jobs to other producers.
        """
        return sorted((job for job in self.jobs if job.active), key=lambda job: job.id)


class JobSource(ABC):
    """Gives the jobs, and tells when they may have changed; used from one task."""

    @abstractmethod
    async def load(self) -> JobList:
        """Read the jobs; blocking work goes off the loop.

        Raises SettingError (with its path below ``probes``) where there's something wrong with
        the source itself, UnavailableError where it is a server that is away: the jobs from
        before then go on, and it is asked again after :meth:`changed`.
        """

    @abstractmethod
    async def changed(self) -> None:
        """Return as soon as the jobs may be others than the last load() gave."""


class ConfigJobs(JobSource):
    """The jobs that stand in the config; a reload makes a new one of these."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = tuple(jobs)

    async def load(self) -> JobList:
        """Return the jobs, which were verified with the config."""
        return JobList(self._jobs)

    async def changed(self) -> None:
        """Never return: only a reload changes these."""
        await asyncio.get_running_loop().create_future()
