"""The part ``probes``: its jobs, kept up to date, and the runner that checks them."""

# ruff: noqa: D102 - Part documents the methods

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from monitor.backoff import Backoff
from monitor.bus import Bus
from monitor.errors import MonitorError, SettingError
from monitor.files.threads import call_aside
from monitor.log_limits import OutageLog
from monitor.messages import Result
from monitor.metrics import Metric
from monitor.part import Health, Part, State, counted
from monitor.probes.checks import load_kinds
from monitor.probes.job import Job
from monitor.probes.runner import RESOLVER_THREADS, Prepared, Runner
from monitor.probes.settings import ProbesSettings
from monitor.probes.sharding import producers_needed, shard
from monitor.probes.source import ConfigJobs, JobList, JobSource
from monitor.probes.turns import Turns
from monitor.store import RETRY_S
from monitor.yielding import free_in_turns, large_load, over_turns

__all__ = ["Probes", "make_source", "own_jobs"]

logger = logging.getLogger("monitor.probes")

_RETRY_S = RETRY_S
# Log lines about the jobs that one load leaves out.
_MOST_REFUSED_LINES = 100
# Within what the daemon allows for draining, with time left to cut off the rest.
_FINISH_S = 3.0


def make_source(settings: ProbesSettings, *, database: JobSource | None = None) -> JobSource:
    """Return the source of jobs for the settings."""
    if settings.source == "file":
        from monitor.probes.jobs_file import FileJobs

        assert settings.jobs_file is not None
        return FileJobs(settings.jobs_file)
    if settings.source == "database":
        if database is None:
            raise SettingError(("source",), "the database cannot be the source here")
        return database
    return ConfigJobs(settings.jobs)


class Probes(Part):
    """Checks sites and publishes results."""

    name = "probes"

    def __init__(
        self, settings: ProbesSettings, bus: Bus, *, database: JobSource | None = None
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._database = database
        self._source = make_source(settings, database=database)
        self._source_changed = asyncio.Event()
        self.runner: Runner | None = None
        # All jobs of the source as last adopted, including those of other producers.
        self.jobs = JobList(())
        # Called with each result, at once.
        self.on_result: Callable[[Result], None] = lambda _: None
        self._turns = Turns()
        self._names: dict[int, str] = {}
        self._outage = OutageLog(logger, outcome="keeping the current jobs", level=logging.ERROR)
        self._refused: tuple[str, ...] = ()
        # The jobs that the log has, and of how many they are.
        self._logged: tuple[Sequence[Job], int] | None = None
        self._running: asyncio.Task[None] | None = None
        # What check() has read, for start().
        self._checked: tuple[JobList, Sequence[Job]] | None = None

    async def check(self) -> None:
        """Load the jobs, except those of a database, which may be unavailable."""
        if self._settings.source != "database":
            self._checked = await _load(self._source, self._settings)

    def remarks(self) -> Sequence[str]:
        return _left_out(() if self._checked is None else self._checked[0].refused)

    async def start(self) -> None:
        self.runner = Runner(
            self._bus,
            topic=self._settings.topic,
            concurrency=self._settings.concurrency,
            producer=self._settings.id or 1,
            location=self._settings.location or "",
            quorum=self._settings.quorum,
            on_result=self._pass_on,
            on_gone=self._turns.forget,
        )
        checked, self._checked = self._checked, None
        try:
            if checked is None:
                checked = await _load(self._source, self._settings)
        except SettingError:
            raise
        except MonitorError as error:
            self._outage.failed(f"cannot load the jobs: {error}", cause=error)
            return
        self._adopt(await self._prepared(*checked))

    @property
    def source(self) -> str:
        """Where the jobs come from: config, file or database."""
        return self._settings.source

    @property
    def located(self) -> bool:
        """Whether this is one of several locations, which all check these jobs."""
        return self._settings.location is not None

    def _pass_on(self, result: Result) -> None:
        self._turns.take(result, self._names.get(result.job_id, result.url))
        self.on_result(result)

    async def run(self) -> None:
        """Check sites, and follow the source's changes."""
        assert self.runner is not None
        async with asyncio.TaskGroup() as group:
            self._running = group.create_task(self.runner.run(), name="probes:runner")
            group.create_task(self._follow(), name="probes:jobs")

    async def _follow(self) -> None:
        backoff = Backoff(*_RETRY_S)
        while True:
            await self._wait_for_change()
            source, settings = self._source, self._settings
            try:
                with large_load():
                    loaded = await self._prepared(*await _load(source, settings))
            except MonitorError as error:
                self._outage.failed(f"cannot load the jobs: {error}", cause=error)
                await asyncio.sleep(backoff.next_delay())
                continue
            backoff.reset()
            if source is self._source:
                self._adopt(loaded)

    async def _wait_for_change(self) -> None:
        """Return when the source has changed, or a reload has replaced it."""
        self._source_changed.clear()
        if self._outage.problem is not None:
            # The last load failed.
            return
        waits = [
            asyncio.create_task(self._source.changed(), name="probes:source"),
            asyncio.create_task(self._source_changed.wait(), name="probes:reload"),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done():
                waits[0].result()
        finally:
            for task in waits:
                task.cancel()

    async def _prepared(self, jobs: JobList, mine: Sequence[Job]) -> _Loaded:
        """Do all that takes long with many jobs, so that adopting them holds up nobody."""
        assert self.runner is not None
        prepared = await self.runner.prepare(mine)
        # After a restart the grid is as it was; no site is new then.
        at_once = await _new_sites(self.jobs, mine) if self._logged is not None else ()
        logged = self._logged
        # A reload reads the source once more.
        same = (
            logged is not None
            and logged[1] == len(jobs.jobs)
            and len(logged[0]) == len(mine)
            and await _are_equal(logged[0], mine)
        )
        refused = (*jobs.refused, *prepared.left_out)
        known = set(self._refused)
        fresh = [line async for line in over_turns(refused) if line not in known]
        return _Loaded(jobs, mine, prepared, at_once, same, refused, fresh)

    def _adopt(self, loaded: _Loaded) -> None:
        assert self.runner is not None
        self._outage.recovered("jobs loaded again")
        jobs, mine, prepared = loaded.jobs, loaded.mine, loaded.prepared
        free_in_turns(list(self.jobs.jobs))
        self.jobs = jobs
        self.runner.producer = self._settings.id or 1
        self.runner.location = self._settings.location or ""
        self.runner.quorum = self._settings.quorum
        self.runner.set_concurrency(self._settings.concurrency)
        self.runner.set_jobs(prepared, at_once=loaded.at_once)
        self._names = prepared.names
        producer = "" if self._settings.id is None else f" as producer {self._settings.id}"
        where = f" from {self._settings.location}" if self._settings.location else ""
        if not loaded.same:
            checking = len(mine) - len(prepared.left_out)
            logger.info("checking %d of %d jobs%s%s", checking, len(jobs.jobs), producer, where)
        self._logged = mine, len(jobs.jobs)
        for line in _left_out(loaded.fresh):
            logger.error("%s", line)
        self._refused = loaded.refused

    async def prepare(self, settings: ProbesSettings) -> Callable[[], None]:
        """Load the jobs of new settings; see :meth:`Part.prepare`."""
        adopted = self._settings.adopting(settings)
        source = make_source(adopted, database=self._database)
        loaded = await self._prepared(*await _load(source, adopted))

        def switch() -> None:
            self._settings, self._source = adopted, source
            self._source_changed.set()
            self._adopt(loaded)

        return switch

    async def drain(self) -> None:
        """Start no more runs, and give running checks a little time."""
        if self._running is not None:
            self._running.cancel()
        if self.runner is not None:
            try:
                async with asyncio.timeout(_FINISH_S):
                    await self.runner.finish()
            except TimeoutError:
                logger.info("cancelling the checks that are still running")

    async def close(self) -> None:
        if self.runner is not None:
            await self.runner.close()

    def descriptors(self) -> int:
        """Return how many descriptors may be open: one a check, and one a DNS lookup."""
        return 64 + self._settings.concurrency + RESOLVER_THREADS

    def state(self) -> State:
        if self.runner is None:
            return State(Health.STARTING)
        summary = self.runner.summary()
        if self._outage.problem is not None:
            return State(Health.DEGRADED, f"{summary}; {self._outage.problem}")
        if self.runner.wanting is not None:
            return State(Health.DEGRADED, f"{summary}; {self.runner.wanting}")
        if self._refused:
            jobs = counted(len(self._refused), "job")
            return State(Health.DEGRADED, f"{summary}; {jobs} left out")
        return State(Health.OK, summary)

    def metrics(self) -> Iterable[Metric]:
        return self.runner.metrics() if self.runner is not None else ()


async def _new_sites(before: JobList, jobs: Iterable[Job]) -> Collection[int]:
    """Return the ids of the jobs that were not checked before, or in another way."""
    known = {}
    async for job in over_turns(before.jobs):
        if job.active and job.id not in before.stopped:
            known[job.id] = job
    found = []
    async for job in over_turns(jobs):
        old = known.get(job.id)
        if old is None or (old != job and _question(old) != _question(job)):
            found.append(job.id)
    return found


async def _are_equal(some: Sequence[Job], others: Sequence[Job]) -> bool:
    async for one, other in over_turns(zip(some, others, strict=True)):
        if one != other:
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Jobs that were loaded: all, those of this producer, and the ids that are checked at once.

    ``same`` says whether they are as before, ``refused`` has a line for each job that is left out,
    and ``fresh`` those of them that the log does not have.
    """

    jobs: JobList
    mine: Sequence[Job]
    prepared: Prepared
    at_once: Collection[int]
    same: bool
    refused: tuple[str, ...]
    fresh: list[str]


def _question(job: Job) -> Job:
    """Return the job without the keys that its checks do not depend on."""
    return msgspec.structs.replace(job, name="", tags=[], depends_on=[], interval=1.0)


def _left_out(refused: Sequence[str]) -> list[str]:
    lines = [f"job left out: {line}" for line in refused[:_MOST_REFUSED_LINES]]
    more = len(refused) - len(lines)
    return [*lines, f"{more} more jobs left out"] if more else lines


async def _load(source: JobSource, settings: ProbesSettings) -> tuple[JobList, Sequence[Job]]:
    """Return all jobs of the source and those of this producer, with their kinds loaded."""
    jobs = await source.load()
    mine = await call_aside(own_jobs, jobs, settings)
    load_kinds(mine)
    return jobs, mine


def own_jobs(jobs: JobList, settings: ProbesSettings) -> Sequence[Job]:
    """Return the jobs that this producer runs; raise SettingError if its range does not exist.

    Ranges are cut from all active jobs, stopped ones included, so that a stop moves no other
    job. Rows of a database come and go: there, a producer beyond the last range has no jobs.
    """
    active: Sequence[Job] = jobs.active()
    if settings.id is not None:
        per = settings.websites_per_container
        if settings.source == "database" and settings.id > producers_needed(len(active), per):
            return []
        active = shard(active, per, settings.id)
    return [job for job in active if job.id not in jobs.stopped]
