"""The jobs as the API and the page show them, and starting and stopping them.

A job's entry is encoded once per result, and the same bytes go into every list and to every page:
so a list of a thousand jobs costs next to nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from heapq import nlargest
from itertools import chain, islice
from typing import Protocol

import msgspec

from monitor.backoff import Backoff
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.messages import Result
from monitor.probes.job import Job
from monitor.probes.runner import Runner
from monitor.probes.schedule import due_after
from monitor.probes.source import JobList
from monitor.store import RETRY_S, Store
from monitor.web.jobs.down import DownJobs
from monitor.web.jobs.elsewhere import Elsewhere
from monitor.web.jobs.entries import JobEntry, JobState
from monitor.web.jobs.history import Last, last_known, silent_after
from monitor.web.jobs.shared import SharedJobs
from monitor.web.jobs.states import JobStates
from monitor.web.jobs.stopped import StoppedJobs
from monitor.yielding import in_turns, over_turns

__all__ = ["JobRegistry", "Probing"]

logger = logging.getLogger("monitor.web")

_encode = msgspec.json.Encoder().encode
# How many jobs' past is read in one transaction.
_RESTORED_AT_ONCE = 50
# The pause after a successful read of previous job states: the first, and the longest.
_LOOK_S = (1.0, 15.0)
# How long to wait for the probes to load changed jobs.
_SETTLE_S = 2.0


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

    @property
    def located(self) -> bool:
        """Whether this daemon is one of several locations, which all check these jobs."""


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
        self._jobs: Mapping[int, Job] = {}
        # The jobs whose entries are those of the list: each is taken from it when it is asked for,
        # and all of them over some turns of the loop.
        self._taken: dict[int, Job] = {}
        self.is_taking = False
        """Whether some entries are not yet those of the list, and not ``dirty``."""
        self._down = DownJobs(self._changed)
        self._ids: Sequence[int] = []
        self._encoded: dict[int, bytes] = {}
        self._states = JobStates(all_seen=self._shared is None)
        self._elsewhere = None if store is None else Elsewhere(store)
        self.beat_keys: dict[str, int] = {}
        """Jobs of heartbeats, by the hashes of keys that were valid when they were last seen."""
        self._stopped = StoppedJobs(probes, store)
        self._look_again = asyncio.Event()
        probes.on_result = self._take

    async def run(self) -> None:
        """Read the previous states of jobs, and which are stopped, until cancelled."""
        if self._shared is not None:
            await self._shared.asked()
        outage = OutageLog(logger)
        pauses, backoff = Backoff(*_LOOK_S), Backoff(*RETRY_S)
        while True:
            pause_ends = math.inf
            try:
                await self._restore()
                await self._end_pauses()
                pause_ends = self._stopped.next_end()
                outage.recovered("previous job states loaded")
                backoff.reset()
                pause_s = pauses.next_delay()
            except MonitorError as error:
                outage.failed(f"cannot load previous job states: {error}", cause=error)
                pause_s = backoff.next_delay()
            try:
                limit = min(pause_s, max(0.0, pause_ends - time.time()))
                async with asyncio.timeout(limit):
                    await self._look_again.wait()
                pauses.reset()
            except TimeoutError:
                pass
            self._look_again.clear()

    async def refresh(self) -> None:
        """Read what other daemons wrote, if jobs are checked there; raises MonitorError."""
        if self._shared is None:
            if self._elsewhere is not None and self.probes.located:
                self._look()
                found = await self._elsewhere.refresh(self._jobs.values())
                async for result in over_turns(found):
                    self._take(result)
            return
        await self._shared.refresh()
        if not self._stopped.known:
            await self.restore_stops()

    def take_key(self, job_id: int, hash_: str) -> None:
        """Take the hash of a job's new key for its heartbeats; the former key stops working."""
        for former in [each for each, owner in self.beat_keys.items() if owner == job_id]:
            del self.beat_keys[former]
        self.beat_keys[hash_] = job_id

    # Reading

    def ids(self) -> Sequence[int]:
        """Return the ids of all jobs, in order."""
        self._look()
        return self._ids

    def all(self) -> Mapping[int, Job]:
        """Return all jobs by id; a change makes another mapping, and leaves this one as it is."""
        self._look()
        return self._jobs

    async def page(
        self, *, after: int, limit: int, state: JobState | None = None
    ) -> tuple[list[bytes], int | None]:
        """Return the encoded entries after an id, and the last id if there are more.

        With ``state`` it returns only jobs in that state. A long page takes several turns of the
        loop, and leaves out jobs that are deleted meanwhile.
        """
        ids = self.ids()
        entries: list[bytes] = []
        last = after
        async for job_id in over_turns(islice(ids, bisect_right(ids, after), None)):
            self._look()
            self._take_job(job_id)
            job = self._jobs.get(job_id)
            if job is None or (state is not None and self._state(job)[0] != state):
                continue
            if len(entries) == limit:
                return entries, last
            entries.append(self.encoded(job_id))
            last = job_id
        return entries, None

    def encoded(self, job_id: int) -> bytes:
        """Return a job's entry as JSON; raises KeyError."""
        self._take_job(job_id)
        found = self._encoded.get(job_id)
        if found is None or (self._down.is_touching and self._jobs[job_id].depends_on):
            found = self._encoded[job_id] = _encode(self.entry(job_id))
        return found

    async def checked(self) -> list[tuple[Job, Result]]:
        """Return the jobs that are checked, including those that depend on others, with results.

        Of a job that is checked from several locations, each with the last result of one.
        """
        found: list[tuple[Job, Result]] = []
        async for job_id in over_turns(self.ids()):
            self._take_job(job_id)
            job, last = self._jobs.get(job_id), self._states.last(job_id)
            if job is not None and self._own_state(job) in ("up", "down", "unknown"):
                results = self._states.located(job_id) or filter(None, [last])
                found += [(job, each) for each in results]
        return found

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._jobs

    def job(self, job_id: int) -> Job:
        """Return the job; raises KeyError."""
        self._look()
        self._take_job(job_id)
        return self._jobs[job_id]

    def entry(self, job_id: int) -> JobEntry:
        """Return a job with its state; raises KeyError."""
        job = self.job(job_id)
        state, why = self._state(job)
        since, next_run = None, None
        if state == "stopped":
            since = self._stopped.since(job_id)
        elif job.active:
            since = self._states.since(job_id) if why is None else None
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
            tags=job.tags,
            depends_on=job.depends_on,
            state=state if why is None else f"{state}: {why}",
            since=since,
            next_run=next_run,
            last=self._states.last(job_id),
            locations=self._states.located(job_id),
            stopped_until=self._stopped.until(job_id) if state == "stopped" else None,
        )

    def _state(self, job: Job) -> tuple[JobState, str | None]:
        """Return a job's state, and why it is unknown although there are results, if it is."""
        state = self._own_state(job)
        if state in ("up", "down", "unknown") and job.depends_on:
            dependency = self._down.dependency(job, self._jobs)
            if dependency is not None:
                return "unknown", f"depends on {dependency}"
        return state, self._states.undecided(job.id) if state == "unknown" else None

    def _own_state(self, job: Job) -> JobState:
        if job.id in self._stopped:
            return "stopped"
        if not job.active:
            return "inactive"
        last = self._states.last(job.id)
        if last is None or self._states.undecided(job.id) is not None:
            return "unknown"
        return "up" if last.up else "down"

    def is_stopped(self, job_id: int) -> bool:
        """Return whether the job was stopped by hand."""
        return job_id in self._stopped

    def _next_run(self, job: Job) -> float | None:
        if self._shared is not None:
            # All producers share one grid.
            return due_after(job.id, round(job.interval * 1000), int(time.time() * 1000)) / 1000
        runner = self.probes.runner
        try:
            return None if runner is None else runner.job_status(job.id).next_run
        except KeyError:
            return None  # another producer's

    async def down_since(self) -> Mapping[int, float | None]:
        """Return the jobs that are down, and since when (s since the epoch), if that is known."""
        self._look()
        found = {}
        async for job_id in over_turns(list(self._down.ids)):
            self._take_job(job_id)
            if job_id in self._down.ids:
                found[job_id] = self._states.since(job_id)
        return found

    def down_first(self) -> Sequence[int]:
        """Return the ids of all jobs, those of the ones that are down before the others."""
        down = self._down.ids.copy()
        ids = self.ids()
        if not down:
            return ids
        first = [job_id for job_id in ids if job_id in down]
        return first + [job_id for job_id in ids if job_id not in down]

    async def latest_turns(self, most: int) -> Sequence[int]:
        """Return the jobs that are known to have gone down or up, those that did last; first."""
        turned = []
        async for job_id in over_turns(self.ids()):
            since = self._states.since(job_id)
            if since is not None and self._states.has_turned(job_id):
                turned.append((since, job_id))
        return [job_id for _, job_id in nlargest(most, turned)]

    # Changing

    async def stop(self, job_id: int, until: float | None = None) -> bool:
        """Stop a job, over restarts, too: ``until`` a time (s since the epoch) or its start.

        Returns False if it is stopped already, or not active. Raises KeyError for an unknown job,
        and MonitorError if the database fails: then nothing has changed.
        """
        if not self.job(job_id).active or job_id in self._stopped:
            return False
        stopped = await self._stopped.stop(job_id, until)
        self._touch(job_id)
        self._look_again.set()  # at when it starts again
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

    def _touch(self, job_id: int, *, moved: bool = False) -> None:
        """Note that a job's entry has changed.

        If it went down or up, or ``moved`` behind other jobs, those of its dependents have, too.
        """
        self._changed(job_id)
        job = self._jobs.get(job_id)
        down = job is not None and self._own_state(job) == "down"
        self._down.take(job_id, down=down, moved=moved)

    def _changed(self, job_id: int) -> None:
        self.version += 1
        self.dirty.add(job_id)
        self._encoded.pop(job_id, None)

    def _take(self, result: Result) -> None:
        """Take a result from the runner."""
        self._look()
        self._take_job(result.job_id)
        job = self._jobs.get(result.job_id)
        if job is None or (result.kind, result.url) != (job.kind, job.shown_url):
            # Of a job that was deleted meanwhile, or that checks something else now.
            return
        if self._states.take(result, silent_s=silent_after(job)):
            last = self._states.last(job.id)
            assert last is not None
            self.on_change(job, last.up, last)
        self._touch(result.job_id)

    def _look(self) -> None:
        """Take the probes' jobs if they have changed."""
        listed = self.probes.jobs
        if listed is self._listed:
            return
        self._listed = listed
        if self.probes.source == "database" and listed.stopped != self._stopped.ids():
            self._look_again.set()
        self._jobs, self._ids = listed.by_id, listed.ids
        self._down.relisted(listed.dependents)
        self._stopped.apply()
        self.version += 1
        self.listing += 1
        in_turns(self._take_jobs())

    def _take_jobs(self) -> Iterator[None]:
        listed, self.is_taking = self._listed, True
        for job_id in chain(list(self._taken), self._ids):
            self._take_job(job_id)
            yield
            if self._listed is not listed:
                return
        self.is_taking = False

    def _take_job(self, job_id: int) -> None:
        """Compare a job with what it was in the list before, if that was not done yet."""
        job, former = self._jobs.get(job_id), self._taken.get(job_id)
        if job is former:
            return
        if job is None:
            del self._taken[job_id]
            self._states.forget(job_id)
            self._touch(job_id)
            self.dirty.discard(job_id)
            return
        self._taken[job_id] = job
        if former is None:
            self._look_again.set()  # for its previous state
        elif (former.kind, former.url) != (job.kind, job.url):
            self._states.forget(job_id)
            self._look_again.set()
        if former != job:
            self._touch(job_id, moved=former is None or former.depends_on != job.depends_on)

    async def restore_stops(self) -> None:
        """Stop the jobs that were stopped before a restart, or by another daemon."""
        for job_id in await self._stopped.restore():
            if job_id in self._jobs:
                self._touch(job_id)

    async def _end_pauses(self) -> None:
        """Start the jobs whose pause has ended."""
        for job_id in await self._stopped.end_pauses(time.time()):
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
                partial(
                    last_known,
                    jobs=[self._jobs[job_id] for job_id in some if job_id in self._jobs],
                    now=time.time(),
                )
            )
            for job_id in some:
                job, last = self._jobs.get(job_id), found.get(job_id)
                if job is None:
                    continue
                went_down = self._states.restore(job_id, last)
                if went_down is not None:
                    self.on_change(job, False, went_down)
                if last is not None:
                    self._touch(job_id)
