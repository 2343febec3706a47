"""The jobs as the API and the page show them, and starting and stopping them.

A job's entry is encoded once per result, and the same bytes go into every list and to every page:
so a list of a thousand jobs costs next to nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Literal, Protocol

import msgspec

from monitor.backoff import Backoff
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.messages import Result
from monitor.probes.job import Job
from monitor.probes.runner import Runner
from monitor.probes.schedule import due_after
from monitor.probes.source import JobList
from monitor.store import Store
from monitor.web.jobs.history import Last, last_known
from monitor.web.jobs.shared import SharedJobs
from monitor.web.jobs.states import JobStates
from monitor.web.jobs.stopped import StoppedJobs

__all__ = ["JobEntry", "JobRegistry", "JobState", "Probing"]

logger = logging.getLogger("monitor.web")

_encode = msgspec.json.Encoder().encode
# How many jobs' past is read in one transaction.
_RESTORED_AT_ONCE = 50
# The pause between two reads of previous job states: the first, and the longest.
_LOOK_S = (1.0, 15.0)
# How long to wait for the probes to load changed jobs.
_SETTLE_S = 2.0


JobState = Literal["up", "down", "unknown", "stopped", "inactive"]
"""``unknown``: no result yet; ``stopped``: by hand."""


class JobEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A job and its state; ``since`` is unknown if the state is older than the look back."""

    id: int
    name: str
    kind: str
    url: str
    method: str
    interval: float
    timeout: float
    active: bool
    state: JobState
    since: float | None
    next_run: float | None
    last: Result | None


class Probing(Protocol):
    """Where the registry's jobs and results come from: the daemon's probes, or SharedJobs."""

    on_result: Callable[[Result], None]

    @property
    def jobs(self) -> JobList:
        """All jobs, including those of other producers."""

    @property
    def runner(self) -> Runner | None:
        """What runs some of them in this daemon, if anything does."""

    @property
    def source(self) -> str:
        """Where the jobs come from: config, file or database."""


class JobRegistry:
    """All jobs of this daemon's probes, or of others' (SharedJobs); belongs to the loop's thread.

    When a job goes up or down, ``on_change`` is called with the job, whether it is up, and the
    result.
    """

    def __init__(self, probes: Probing, store: Store | None) -> None:
        self.probes = probes
        self._shared = probes if isinstance(probes, SharedJobs) else None
        self.on_change: Callable[[Job, bool, Result], None] = lambda *_: None
        self.epoch = secrets.token_hex(4)
        self.version = 0
        """Counts the changes of entries, within this process's ``epoch``."""
        self.dirty: set[int] = set()
        """Jobs whose entries changed since the live feed took this set."""
        self.listing = 0
        """Counts how often the list of jobs changed."""
        self._store = store
        self._listed: JobList | None = None
        self._jobs: dict[int, Job] = {}
        self._ids: list[int] = []
        self._encoded: dict[int, bytes] = {}
        self._states = JobStates(all_seen=self._shared is None)
        self._stopped = StoppedJobs(probes, store)
        self._look_again = asyncio.Event()
        probes.on_result = self._take

    async def run(self) -> None:
        """Read the previous states of jobs, and which are stopped, until cancelled."""
        if self._shared is not None:
            await self._shared.asked()
        outage = OutageLog(logger)
        backoff = Backoff(*_LOOK_S)
        while True:
            try:
                await self._restore()
                outage.recovered("previous job states loaded")
            except MonitorError as error:
                outage.failed(f"cannot load previous job states: {error}")
            try:
                async with asyncio.timeout(backoff.next_delay()):
                    await self._look_again.wait()
                backoff.reset()
            except TimeoutError:
                pass
            self._look_again.clear()

    async def refresh(self) -> None:
        """Read what other daemons wrote, if all jobs are theirs; raises MonitorError."""
        if self._shared is None:
            return
        await self._shared.refresh()
        if not self._stopped.known:
            await self.restore_stops()

    # Reading

    def ids(self) -> Sequence[int]:
        """Return the ids of all jobs, in order."""
        self._look()
        return self._ids

    def page(
        self, *, after: int, limit: int, state: JobState | None = None
    ) -> tuple[list[bytes], int | None]:
        """Return the encoded entries after an id, and the last id if there are more.

        With ``state`` it returns only jobs in that state.
        """
        ids = self.ids()
        wanted = (
            job_id
            for job_id in islice(ids, bisect_right(ids, after), None)
            if state is None or self._state(self._jobs[job_id]) == state
        )
        taken = list(islice(wanted, limit))
        more = taken[-1] if next(wanted, None) is not None else None
        return [self.encoded(job_id) for job_id in taken], more

    def encoded(self, job_id: int) -> bytes:
        """Return a job's entry as JSON; raises KeyError."""
        found = self._encoded.get(job_id)
        if found is None:
            found = self._encoded[job_id] = _encode(self.entry(job_id))
        return found

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._jobs

    def job(self, job_id: int) -> Job:
        """Return the job; raises KeyError."""
        self._look()
        return self._jobs[job_id]

    def entry(self, job_id: int) -> JobEntry:
        """Return a job with its state; raises KeyError."""
        job = self.job(job_id)
        state = self._state(job)
        since, next_run = None, None
        if state == "stopped":
            since = self._stopped.since(job_id)
        elif job.active:
            since = self._states.since(job_id)
            next_run = self._next_run(job)
        return JobEntry(
            id=job.id,
            name=job.name,
            kind=job.kind,
            url=job.shown_url,
            method=getattr(job, "method", "GET"),
            interval=job.interval,
            timeout=job.timeout,
            active=job.active,
            state=state,
            since=since,
            next_run=next_run,
            last=self._states.last(job_id),
        )

    def _state(self, job: Job) -> JobState:
        if job.id in self._stopped:
            return "stopped"
        if not job.active:
            return "inactive"
        last = self._states.last(job.id)
        return "unknown" if last is None else "up" if last.up else "down"

    def _next_run(self, job: Job) -> float | None:
        if self._shared is not None:
            # All producers share one grid.
            return due_after(job.id, round(job.interval * 1000), int(time.time() * 1000)) / 1000
        runner = self.probes.runner
        try:
            return None if runner is None else runner.job_status(job.id).next_run
        except KeyError:
            return None  # another producer's

    def has_turned(self, job_id: int) -> bool:
        """Return whether the job is known to have been down before it was up, or up before."""
        return self._states.has_turned(job_id)

    # Changing

    async def stop(self, job_id: int) -> bool:
        """Stop a job until it is started, over restarts, too.

        Returns False if it is stopped already, or not active. Raises KeyError for an unknown job,
        and MonitorError if the database fails: then nothing has changed.
        """
        if not self.job(job_id).active or job_id in self._stopped:
            return False
        stopped = await self._stopped.stop(job_id)
        self._touch(job_id)
        return stopped

    async def start(self, job_id: int) -> bool:
        """Start a stopped job; return False if it is not stopped. Raises as :meth:`stop` does."""
        self.job(job_id)
        if job_id not in self._stopped:
            return False
        started = await self._stopped.start(job_id)
        await self.settle(lambda: job_id not in self.probes.jobs.stopped)
        self._touch(job_id)
        return started

    async def settle(self, condition: Callable[[], bool]) -> None:
        """Wait until the probes have loaded what was written, for a limited time."""
        deadline = time.monotonic() + _SETTLE_S
        while time.monotonic() < deadline:
            self._look()
            if condition():
                return
            await asyncio.sleep(0.02)

    # Inside

    def _touch(self, job_id: int) -> None:
        self.version += 1
        self.dirty.add(job_id)
        self._encoded.pop(job_id, None)

    def _take(self, result: Result) -> None:
        """Take a result from the runner."""
        self._look()
        job = self._jobs.get(result.job_id)
        turned = self._states.take(result, listed=job is not None)
        if turned and job is not None:
            self.on_change(job, result.up, result)
        self._touch(result.job_id)

    def _look(self) -> None:
        """Take the probes' jobs if they have changed."""
        listed = self.probes.jobs
        if listed is self._listed:
            return
        self._listed = listed
        if self.probes.source == "database" and listed.stopped != self._stopped.ids():
            self._look_again.set()
        jobs = {job.id: job for job in listed.jobs}
        for job_id in self._jobs.keys() - jobs.keys():
            self._encoded.pop(job_id, None)
            self._states.forget(job_id)
        old, self._jobs = self._jobs, jobs
        self._ids = sorted(jobs)
        if jobs.keys() - old.keys():
            self._look_again.set()  # for their previous states
        for job_id, job in jobs.items():
            if old.get(job_id) != job:
                self._touch(job_id)
        self._stopped.apply()
        self.dirty &= jobs.keys()
        self.version += 1
        self.listing += 1

    async def restore_stops(self) -> None:
        """Stop the jobs that were stopped before a restart, or by another daemon."""
        for job_id in await self._stopped.restore():
            if job_id in self._jobs:
                self._touch(job_id)

    async def _restore(self) -> None:
        await self.restore_stops()
        store = self._store
        if store is None:
            return
        missing = self._states.missing(self.ids())
        for start in range(0, len(missing), _RESTORED_AT_ONCE):
            some = missing[start : start + _RESTORED_AT_ONCE]
            found: Mapping[int, Last] = await store.read(
                partial(last_known, job_ids=some, now=time.time())
            )
            for job_id in some:
                if self._states.restore(job_id, found.get(job_id)):
                    self._touch(job_id)
