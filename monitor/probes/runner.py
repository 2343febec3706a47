"""Runs the jobs that are due, and publishes one result a run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from monitor import messages
from monitor.bus import Bus
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.messages import Outcome, Result
from monitor.metrics import Histogram, Metric
from monitor.part import counted
from monitor.probes.beats import Beat
from monitor.probes.check import Attempt
from monitor.probes.checking import Checks, check_job, result_of
from monitor.probes.job import Job
from monitor.probes.no_result import NoResultError, OwnTroubleError
from monitor.probes.schedule import Run, Schedule
from monitor.probes.slots import Slots
from monitor.yielding import in_turns, over_turns

__all__ = ["RESOLVER_THREADS", "JobStatus", "Prepared", "Runner"]

logger = logging.getLogger("monitor.probes")

# How often to look at the clock at least, to notice its jumps.
_LOOK_S = 0.5
# Starts are gathered for this long, which is not late for a job and saves turns of the loop.
_TICK_S = 0.01
# Runs started in one turn of the loop, which are fewer than it can bring to their ends. Otherwise
# all runs that are late would be open at once: they would take memory, and wait for each other.
_MOST_STARTS = 4
# While the loop is behind, only this many are open, and at least one starts in this time, in s:
# those that are open may all wait for their sites.
_FEW_OPEN = 16
_PATIENCE_S = 0.1
# Lookups at once; a thread starts only where all others are busy.
RESOLVER_THREADS = 512
# Between the first runs of new jobs.
_SPREAD_S = 0.005
# A job whose last attempt took longer than this shares half of the slots with its likes.
_SLOW_S = 1.0
# Checks can be made again once none has failed for lack of a resource for this long.
_WANTING_S = 30.0
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class _Active:
    """A job that runs, ready for its next attempt."""

    __slots__ = ("attempt", "job", "key", "last", "slow", "task", "url")

    def __init__(self, job: Job, attempt: Attempt) -> None:
        self.job = job
        self.attempt = attempt
        self.key = str(job.id)
        self.url = job.shown_url
        self.slow = False
        self.last: Result | None = None
        # The check that is running.
        self.task: asyncio.Task[Result] | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Jobs that can be run, by id, and a line for each that cannot, which is left out."""

    active: dict[int, _Active]
    left_out: list[str]
    names: dict[int, str]
    """What people call the jobs."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job's status: its next run in epoch s (None while stopped) and its last result."""

    job: Job
    running: bool
    next_run: float | None
    last: Result | None


class Runner:
    """Keeps the jobs on their grid; ``clock`` gives epoch s."""

    def __init__(
        self,
        bus: Bus,
        *,
        topic: str,
        concurrency: int,
        producer: int = 1,
        location: str = "",
        quorum: int | None = None,
        on_result: Callable[[Result], None] = lambda _: None,
        on_gone: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._on_result = on_result
        self._on_gone = on_gone
        self._topic = topic
        self.producer = producer
        self.location = location
        self.quorum = quorum
        self._clock = clock
        self._checks = Checks(resolver_threads=RESOLVER_THREADS)
        self.beats = self._checks.beats
        self.beats.on_late = self._look_at_beat
        self._slots = Slots(concurrency)
        self._schedule = Schedule()
        self._jobs: dict[int, _Active] = {}
        # What set_jobs() has not come to yet: the jobs before, and those to check at once.
        self._before: dict[int, _Active] = {}
        self._at_once: set[int] = set()
        self._stopped: set[int] = set()
        self._running: set[asyncio.Task[Result]] = set()
        self._changed = asyncio.Event()
        self._starting = False
        self._ran = False
        # Starts the rest in the next turn of the loop.
        self._more: asyncio.Handle | None = None
        self._wanting = OutageLog(
            logger, subject="checks cannot be made", outcome="there are no results of them"
        )
        self._wanting_at = 0.0
        self._began_at = 0.0
        self._up = {True: 0, False: 0}
        self._durations = Histogram(
            "probe_duration_seconds", "How long the last attempt of a run took.", _SECONDS
        )
        self._lags = Histogram(
            "probe_lag_seconds", "How long after it was due a run started.", _SECONDS
        )

    # Jobs

    async def prepare(self, jobs: Sequence[Job]) -> Prepared:
        """Prepare these verified, active jobs for :meth:`set_jobs`, over as many turns as it takes.

        Unchanged ones stay as they are.
        """
        active = {}
        left_out = []
        names = {}
        async for job in over_turns(jobs):
            known = self._jobs.get(job.id)
            if known is None or known.job != job:
                try:
                    known = _Active(job, self._checks.prepare(job))
                except MonitorError as error:
                    left_out.append(str(error))
                    continue
            active[job.id] = known
            names[job.id] = job.name or known.url
        return Prepared(active, left_out, names)

    def set_jobs(self, prepared: Prepared, *, at_once: Collection[int] = ()) -> None:
        """Run exactly these jobs; unchanged ones keep running as they are.

        Those whose ids are in ``at_once`` are checked now, and then on their grid. Thousands are
        scheduled and forgotten over many turns of the loop.
        """
        before, self._jobs = self._jobs, prepared.active
        before.update(self._before)
        self._before = before
        self._at_once.update(at_once)
        in_turns(self._settle(self._clock()))

    def _settle(self, now: float) -> Iterator[None]:
        jobs = self._jobs
        while self._before:
            self._forget(*self._before.popitem())
            yield
        at_once = now
        # Of a list, since the next set_jobs() takes them away one by one.
        for job_id, active in list(jobs.items()):
            if self._jobs is not jobs:
                return
            if job_id not in self._stopped:
                first = at_once if job_id in self._at_once else None
                self._at_once.discard(job_id)
                if self._schedule.add(job_id, active.job.interval, now, first=first):
                    at_once += _SPREAD_S
            yield
        self._at_once.clear()
        self._changed.set()
        yield from self._schedule.tidy()

    def _forget(self, job_id: int, before: _Active) -> None:
        """Forget what is known of a job that has changed or is gone."""
        if self._jobs.get(job_id) is before:
            return
        self._checks.forget(job_id)
        if job_id not in self._jobs:
            self._schedule.remove(job_id)
            self._stopped.discard(job_id)
            self._on_gone(job_id)

    def set_concurrency(self, limit: int) -> None:
        """Change how many attempts may be open at once, for those that start from now on."""
        self._slots.limit = limit

    def stop_job(self, job_id: int) -> bool:
        """Stop running the job until start_job; return False if it already was stopped.

        Raises KeyError for an unknown job. A run that has started is finished.
        """
        if job_id not in self._jobs:
            raise KeyError(job_id)
        if job_id in self._stopped:
            return False
        self._stopped.add(job_id)
        self._schedule.remove(job_id)
        in_turns(self._schedule.tidy())
        return True

    def start_job(self, job_id: int) -> bool:
        """Run a stopped job again, now and on its grid; return False if it was not stopped.

        Raises KeyError for an unknown job.
        """
        if job_id not in self._jobs:
            raise KeyError(job_id)
        if job_id not in self._stopped:
            return False
        self._stopped.discard(job_id)
        now = self._clock()
        self._schedule.add(job_id, self._jobs[job_id].job.interval, now, first=now)
        self._changed.set()
        return True

    def job_status(self, job_id: int) -> JobStatus:
        """Return a job's status; raises KeyError."""
        active = self._jobs[job_id]
        return JobStatus(
            active.job,
            job_id not in self._stopped,
            self._schedule.next_due(job_id),
            active.last,
        )

    @property
    def stopped(self) -> frozenset[int]:
        """The ids of stopped jobs."""
        return frozenset(self._stopped)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def job_ids(self) -> list[int]:
        """Return the ids of all jobs, in order."""
        return sorted(self._jobs)

    # Running

    async def run(self) -> None:
        """Start runs when they are due, until cancelled."""
        self._starting = True
        if not self._ran:
            # What was due while the daemon started is neither late nor missed.
            self._ran = True
            self._schedule.start(self._clock())
        while True:
            self._changed.clear()
            async for _ in over_turns(self._schedule.follow_clock(self._clock())):
                pass
            for run in self._schedule.due(self._clock()):
                if run.job_id in self._jobs:
                    self._slots.offer(run, slow=self._jobs[run.job_id].slow)
                else:
                    self._schedule.finished(run.job_id)
            self._fill_slots()
            due = self._schedule.next_due()
            pause = _LOOK_S if due is None else due - self._clock()
            try:
                async with asyncio.timeout(min(max(pause, _TICK_S), _LOOK_S)):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _fill_slots(self) -> None:
        if self._more is not None:
            return  # in the next turn
        for _ in range(_MOST_STARTS):
            if self._slots.waiting and self._held_back():
                break
            if not self._starting or (taken := self._slots.take()) is None:
                return
            run, slow = taken
            active = self._jobs.get(run.job_id)
            if active is None or run.job_id in self._stopped:
                self._slots.release(slow=slow)
                self._schedule.missed(run)
                continue
            self._begin(run, active, slow=slow)
        self._more = asyncio.get_running_loop().call_soon(self._fill_more)

    def _held_back(self) -> bool:
        """Return whether checks that are open should end before further ones start."""
        if not _FEW_OPEN <= self._slots.open < self._slots.limit or not self._checks.behind:
            return False
        return time.monotonic() < self._began_at + _PATIENCE_S

    def _fill_more(self) -> None:
        self._more = None
        self._fill_slots()

    def _begin(self, run: Run, active: _Active, *, slow: bool) -> asyncio.Task[Result]:
        self._began_at = time.monotonic()
        before = self._before.pop(run.job_id, None)
        if before is not None:
            self._forget(run.job_id, before)
        task = asyncio.create_task(self._check(run, active, slow), name=f"job:{run.job_id}")
        active.task = task
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Result]) -> None:
        self._running.discard(task)
        if not task.cancelled() and isinstance(task.exception(), NoResultError):
            logger.debug("%s", task.exception())

    def beat(self, job_id: int, beat: Beat, came_at: float) -> None:
        """Take a job's heartbeat, which gives a result at once."""
        if self.beats.take(job_id, beat, came_at):
            self._look_at_beat(job_id)

    def _look_at_beat(self, job_id: int) -> None:
        if self._starting and job_id in self._jobs and job_id not in self._stopped:
            task = self._now(job_id)
            # It may have no result yet.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _now(self, job_id: int) -> asyncio.Task[Result]:
        active = self._jobs[job_id]
        task = active.task
        if task is None or task.done():
            self._slots.claim()
            self._schedule.begin(job_id)
            task = self._begin(Run(job_id, round(self._clock(), 3), 0), active, slow=False)
        return task

    async def check_now(self, job_id: int) -> Result:
        """Check a job now, off its grid, and return the result, which is published as others are.

        If it is being checked already, that check's result is returned. Raises KeyError, and
        NoResultError for a heartbeat that has no result yet, and where the daemon itself lacks what
        the check needs.
        """
        # The check has other readers than this caller.
        return await asyncio.shield(self._now(job_id))

    async def _check(self, run: Run, active: _Active, slow: bool) -> Result:
        try:
            checked_at = self._clock()
            outcome, attempt = await self._attempt(run, active)
            result = result_of(
                active.job,
                run,
                outcome,
                url=active.url,
                checked_at=checked_at,
                producer=self.producer,
                location=self.location,
                quorum=self.quorum,
                attempt=attempt,
            )
            active.slow = outcome.duration > _SLOW_S
            active.last = result
            self._count(result)
            self._on_result(result)
            self._bus.publish(
                self._topic, key=active.key, value=messages.encode(result), headers=result.headers()
            )
            return result
        finally:
            self._schedule.finished(run.job_id)
            self._slots.release(slow=slow)
            self._fill_slots()

    async def _attempt(self, run: Run, active: _Active) -> tuple[Outcome, int]:
        try:
            made = await check_job(active.job, active.attempt)
        except OwnTroubleError as error:
            self._wanting_at = time.monotonic()
            self._wanting.failed(error.trouble)
            self._schedule.missed(run)
            raise
        if self._wanting.problem is not None and time.monotonic() > self._wanting_at + _WANTING_S:
            self._wanting.recovered("there is enough again")
        return made

    def _count(self, result: Result) -> None:
        self._up[result.up] += 1
        self._durations.observe(result.duration)
        self._lags.observe(max(0.0, result.checked_at - result.scheduled_at))

    async def finish(self) -> None:
        """Wait for running checks; the caller has cancelled run() and bounds the time."""
        self._starting = False
        while self._running:
            await asyncio.wait(self._running)

    async def close(self) -> None:
        """Cancel running checks, which give no results, and close everything."""
        self._starting = False
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._checks.close()

    @property
    def wanting(self) -> str | None:
        """What the daemon itself lacks, so that it cannot make checks."""
        return None if self._wanting.problem is None else self._wanting.summary

    def summary(self) -> str:
        """Return the runner's numbers in a few words."""
        words = f"{counted(len(self._jobs), 'job')}, {self._slots.open} open"
        waiting, missed = self._slots.waiting, self._schedule.missed_total
        if waiting:
            words += f", {waiting} waiting"
        return f"{words}, {missed} missed" if missed else words

    def metrics(self) -> Iterable[Metric]:
        """Return the runner's metrics."""
        yield Metric(
            "probe_results_total",
            "counter",
            "Results published.",
            [({"up": str(up).lower()}, float(count)) for up, count in self._up.items()],
        )
        yield self._durations.metric()
        yield self._lags.metric()
        missed = float(self._schedule.missed_total)
        yield Metric("probe_missed_total", "counter", "Runs that were missed.", [({}, missed)])
