"""When to check: one fixed grid a job; pure, time comes in as an argument.

A job's runs are due at ``(k + phase) * interval`` since the epoch, for every whole k, where
the phase is a hash of the job's id. So starts are spread evenly over the interval, and the grid
survives reloads and restarts and is the same for every producer. Times are whole milliseconds,
so nothing drifts.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass

__all__ = ["Run", "Schedule", "due_after", "phase"]

_MASK = (1 << 64) - 1
# A run that would start later than this (the loop was blocked, the machine slept) is missed.
_GRACE_MS = 1000
# Between the first runs of new jobs.
_SPREAD_MS = 5


def phase(job_id: int) -> float:
    """Return the job's place in its interval, from 0 to below 1: splitmix64 of its id.

    Source: Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014).
    """
    mixed = (job_id * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    mixed ^= mixed >> 31
    return (mixed >> 11) / (1 << 53)


def due_after(job_id: int, interval_ms: int, now_ms: int) -> int:
    """Return the first time on the job's grid after ``now_ms``, all in epoch milliseconds."""
    start = int(phase(job_id) * interval_ms)
    return now_ms + interval_ms - (now_ms - start) % interval_ms


@dataclass(frozen=True, slots=True)
class Run:
    """A due run of a job: its time on the grid (epoch s), and how many runs were missed before."""

    job_id: int
    scheduled_at: float
    missed: int


class _Entry:
    __slots__ = ("at_once", "due_ms", "interval_ms", "missed")

    def __init__(self, interval_ms: int, due_ms: int) -> None:
        self.interval_ms = interval_ms
        self.due_ms = due_ms
        self.missed = 0
        # Whether the next run is off the grid: the first of a new job.
        self.at_once = False


class Schedule:
    """The next run of every job. Wall-clock times are epoch seconds.

    A job never overlaps itself: a run that is due while the previous one has not finished is
    missed. So is one that would start more than a second late. Missed runs are not made up for;
    they are counted, and the next run carries the count.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._heap: list[tuple[int, int]] = []
        # New jobs that are about to be scheduled: their times take long to find for thousands.
        self._foreseen: dict[int, _Entry] = {}
        # Apart from the entries: a job that was removed and added again may still be running.
        self._running: set[int] = set()
        # Jobs whose first run waits for the end of a run of what they were before.
        self._postponed: set[int] = set()
        # The latest time since the clock was last set back.
        self._latest_ms = 0
        self.missed_total = 0

    def foresee(self, job_id: int, interval: float, now: float) -> None:
        """Prepare for a job of the next :meth:`set_jobs`, which is then quicker; in s, as there."""
        interval_ms = round(interval * 1000)
        known = self._entries.get(job_id)
        if known is None or known.interval_ms != interval_ms:
            due_ms = due_after(job_id, interval_ms, int(now * 1000))
            self._foreseen[job_id] = _Entry(interval_ms, due_ms)

    def set_jobs(
        self,
        intervals: Iterable[tuple[int, float]],
        now: float,
        *,
        at_once: Collection[int] = (),
    ) -> None:
        """Schedule exactly these jobs, ids with their intervals in s.

        Keeps the state of jobs whose interval is the same. Those in ``at_once`` run now, a few
        milliseconds after each other, and then on their grid.
        """
        now_ms = int(now * 1000)
        self._latest_ms = max(self._latest_ms, now_ms)
        entries: dict[int, _Entry] = {}
        foreseen, self._foreseen = self._foreseen, {}
        for job_id, interval in intervals:
            interval_ms = round(interval * 1000)
            known = self._entries.get(job_id)
            if known is not None and known.interval_ms == interval_ms:
                entries[job_id] = known
                continue
            known = foreseen.get(job_id)
            if (
                known is not None
                and known.interval_ms == interval_ms
                and known.due_ms - interval_ms <= now_ms < known.due_ms
            ):
                entries[job_id] = known
            else:
                entries[job_id] = _Entry(interval_ms, due_after(job_id, interval_ms, now_ms))
        first_ms = now_ms
        for job_id in at_once:
            entry = entries.get(job_id)
            # A time on the grid that comes soon is soon enough.
            if entry is not None and entry.due_ms > first_ms + _GRACE_MS:
                entry.due_ms, entry.at_once = first_ms, True
                first_ms += _SPREAD_MS
        self._entries = entries
        self._rebuild()

    def start(self, now: float) -> None:
        """Take the next times on the grid after ``now``: those before were nobody's to run."""
        now_ms = int(now * 1000)
        for job_id, entry in self._entries.items():
            if not entry.at_once:
                entry.due_ms = due_after(job_id, entry.interval_ms, now_ms)
        self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(entry.due_ms, job_id) for job_id, entry in self._entries.items()]
        heapq.heapify(self._heap)

    def due(self, now: float) -> list[Run]:
        """Return the runs to start now, in the order in which they were due.

        Each job returned is running until :meth:`finished` is called for it. After the clock was
        set back, runs follow the grid of its new time at once.
        """
        now_ms = int(now * 1000)
        if now_ms < self._latest_ms - _GRACE_MS:
            self._latest_ms = now_ms
            for job_id, entry in self._entries.items():
                entry.due_ms = due_after(job_id, entry.interval_ms, now_ms)
                entry.at_once = False
            self._rebuild()
        self._latest_ms = max(self._latest_ms, now_ms)
        runs = []
        heap = self._heap
        while heap and heap[0][0] <= now_ms:
            due_ms, job_id = heap[0]
            entry = self._entries[job_id]
            # The last time on the grid up to now; earlier ones are missed.
            at_once = entry.at_once
            if at_once:
                late, last_ms = 0, due_ms
                entry.due_ms = due_after(job_id, entry.interval_ms, now_ms)
                entry.at_once = False
            else:
                late = (now_ms - due_ms) // entry.interval_ms
                last_ms = due_ms + late * entry.interval_ms
                entry.due_ms = last_ms + entry.interval_ms
            heapq.heapreplace(heap, (entry.due_ms, job_id))
            self._miss(entry, late)
            if at_once and job_id in self._running:
                self._postponed.add(job_id)
                continue
            if job_id in self._running or (now_ms - last_ms > _GRACE_MS and not at_once):
                self._miss(entry, 1)
                continue
            self._running.add(job_id)
            runs.append(Run(job_id, last_ms / 1000, entry.missed))
            entry.missed = 0
        return runs

    def _miss(self, entry: _Entry, count: int) -> None:
        entry.missed += count
        self.missed_total += count

    def begin(self, job_id: int) -> None:
        """Mark a run off the grid as running, so that none of the grid overlaps it."""
        self._running.add(job_id)

    def finished(self, job_id: int) -> None:
        """Mark the job's run as finished."""
        self._running.discard(job_id)
        if job_id in self._postponed:
            self._postponed.discard(job_id)
            entry = self._entries.get(job_id)
            if entry is not None and entry.due_ms > self._latest_ms + _GRACE_MS:
                entry.due_ms, entry.at_once = self._latest_ms, True
                self._rebuild()

    def missed(self, run: Run) -> None:
        """Mark a run as not started: it counts as missed, with the missed runs that it carried."""
        self._running.discard(run.job_id)
        entry = self._entries.get(run.job_id)
        if entry is not None:
            entry.missed += run.missed
            self._miss(entry, 1)

    def next_due(self, job_id: int | None = None) -> float | None:
        """Return when the next run of the job, or of any job, is due; None if there is none."""
        if job_id is not None:
            entry = self._entries.get(job_id)
            return None if entry is None else entry.due_ms / 1000
        return self._heap[0][0] / 1000 if self._heap else None
