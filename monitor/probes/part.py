"""The part ``probes``: its jobs, kept up to date, and the runner that checks them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from monitor.bus import Bus
from monitor.errors import MonitorError, SettingError
from monitor.messages import Result
from monitor.part import Health, Metric, Part, State
from monitor.probes.job import Job
from monitor.probes.runner import Runner
from monitor.probes.settings import ProbesSettings
from monitor.probes.sharding import producers_needed, shard
from monitor.probes.source import ConfigJobs, JobList, JobSource

__all__ = ["Probes", "make_source", "own_jobs"]

logger = logging.getLogger("monitor.probes")

_RETRY_S = 5.0
# Of the jobs that one reading refuses.
_MOST_REFUSED_LINES = 100
# Within what the daemon allows for draining, with time left to cut off the rest.
_FINISH_S = 3.0


def make_source(settings: ProbesSettings, *, database: JobSource | None = None) -> JobSource:
    """Return the source of jobs that the settings name."""
    if settings.source == "file":
        from monitor.probes.jobs_file import FileJobs

        assert settings.jobs_file is not None
        return FileJobs(settings.jobs_file)
    if settings.source == "database":
        if database is None:
            raise SettingError(("source",), "the database can't be used as a source here")
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
        # All jobs of the source as adopted last, those of other producers too.
        self.jobs = JobList(())
        # Called with each result, as soon as it is there.
        self.on_result: Callable[[Result], None] = lambda _: None
        self._problem: str | None = None
        self._refused: tuple[str, ...] = ()
        # The jobs that the log was last told of, and of how many they are.
        self._told: tuple[list[Job], int] | None = None
        self._running: asyncio.Task[None] | None = None
        # What check() has read, for start().
        self._checked: JobList | None = None

    async def check(self) -> None:
        """Load the jobs, but those of a database, which may be away."""
        if self._settings.source != "database":
            jobs = await self._source.load()
            own_jobs(jobs, self._settings)
            self._checked = jobs

    async def start(self) -> None:
        """Load the jobs and get ready to check them."""
        self.runner = Runner(
            self._bus,
            topic=self._settings.topic,
            concurrency=self._settings.concurrency,
            producer=self._settings.id or 1,
            on_result=self._pass_on,
        )
        jobs, self._checked = self._checked, None
        try:
            if jobs is None:
                jobs = await self._source.load()
        except SettingError:
            raise
        except MonitorError as error:
            self._fail(str(error))
            return
        self._adopt(jobs, own_jobs(jobs, self._settings))

    @property
    def source(self) -> str:
        """Where the jobs come from: config, file or database."""
        return self._settings.source

    def _pass_on(self, result: Result) -> None:
        self.on_result(result)

    async def run(self) -> None:
        """Check, and follow the source's changes."""
        assert self.runner is not None
        async with asyncio.TaskGroup() as group:
            self._running = group.create_task(self.runner.run(), name="probes:runner")
            group.create_task(self._follow(), name="probes:jobs")

    async def _follow(self) -> None:
        while True:
            await self._wait_for_change()
            source, settings = self._source, self._settings
            try:
                jobs = await source.load()
                mine = own_jobs(jobs, settings)
            except MonitorError as error:
                self._fail(str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            if source is self._source:
                self._adopt(jobs, mine)

    async def _wait_for_change(self) -> None:
        """Return when the source changed, or the source is another one since a reload."""
        self._source_changed.clear()
        if self._problem is not None:
            # It was not loaded: what it is now is not known.
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

    def _fail(self, problem: str) -> None:
        if self._problem != problem:
            logger.error("the jobs stay as they were: %s", problem)
        self._problem = problem

    def _adopt(self, jobs: JobList, mine: Sequence[Job]) -> None:
        assert self.runner is not None
        known = set(self._refused)
        new = [line for line in jobs.refused if line not in known]
        for line in new[:_MOST_REFUSED_LINES]:
            logger.error("job refused: %s", line)
        if len(new) > _MOST_REFUSED_LINES:
            logger.error("job refused: %d more of them", len(new) - _MOST_REFUSED_LINES)
        self._refused = jobs.refused
        self._problem = None
        self.jobs = jobs
        self.runner.producer = self._settings.id or 1
        self.runner.set_concurrency(self._settings.concurrency)
        self.runner.set_jobs(mine)
        producer = "" if self._settings.id is None else f" as producer {self._settings.id}"
        told = (list(mine), len(jobs.jobs))
        # After a reload the source is read once more.
        if told != self._told:
            logger.info("checking %d of %d jobs%s", len(mine), len(jobs.jobs), producer)
        self._told = told

    async def prepare(self, settings: ProbesSettings) -> Callable[[], Sequence[str]]:
        """Load the jobs of new settings; see :meth:`Part.prepare`."""
        source = make_source(settings, database=self._database)
        jobs = await source.load()
        mine = own_jobs(jobs, settings)

        def switch() -> Sequence[str]:
            old = self._settings
            self._settings, self._source = settings, source
            self._source_changed.set()
            self._adopt(jobs, mine)
            return ["topic"] if settings.topic != old.topic else []

        return switch

    async def drain(self) -> None:
        """Start nothing more, and give the runs under way a little time."""
        if self._running is not None:
            self._running.cancel()
        if self.runner is not None:
            try:
                async with asyncio.timeout(_FINISH_S):
                    await self.runner.finish()
            except TimeoutError:
                logger.info("cutting off the checks that are under way")

    async def close(self) -> None:
        """Let go of everything."""
        if self.runner is not None:
            await self.runner.close()

    def descriptors(self) -> int:
        """Return how many descriptors may be open: HTTP/1.1 takes one a check, DNS another."""
        return 64 + 2 * self._settings.concurrency

    def state(self) -> State:
        """Return how the part fares."""
        if self.runner is None:
            return State(Health.STARTING)
        summary = self.runner.summary()
        if self._problem is not None:
            return State(Health.DEGRADED, f"{summary}; {self._problem}")
        if self._refused:
            return State(Health.DEGRADED, f"{summary}; {len(self._refused)} jobs refused")
        return State(Health.OK, summary)

    def metrics(self) -> Iterable[Metric]:
        """Return the part's metrics."""
        return self.runner.metrics() if self.runner is not None else ()


def own_jobs(jobs: JobList, settings: ProbesSettings) -> Sequence[Job]:
    """Return the jobs that this producer runs; raise SettingError if there's no range.

    Ranges are cut from all active jobs, the stopped ones too, so that a stop moves no other.
    Rows of a database come and go: there, a producer too many has none for now.
    """
    active: Sequence[Job] = jobs.active()
    if settings.id is not None:
        per = settings.websites_per_container
        if settings.source == "database" and settings.id > producers_needed(len(active), per):
            return []
        active = shard(active, per, settings.id)
    return [job for job in active if job.id not in jobs.stopped]
