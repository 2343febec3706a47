"""When to check: one fixed grid a job; pure, time comes in as an argument.

A job's runs are due at ``(k + phase) * interval`` since the epoch, for every whole k, where
the phase is a hash of the job's id. So starts are spread evenly over the interval, and the grid
survives reloads and restarts and is the same for every producer. Times are whole milliseconds,
so nothing drifts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Run", "Schedule", "due_after", "phase"]

_MASK = (1 << 64) - 1
# A run that would start later than this (the loop was blocked, the machine slept) is missed.
_GRACE_MS = 1000
# Jobs looked at in one call: after a sleep of the machine, all are late.
_MOST_DUE = 1000
# Times in the heap that are no longer those of a job, next to as many as there are jobs.
_MOST_STALE = 1000


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
        # When jobs are due. Times that are no longer their entries' are dropped when they come.
        self._heap: list[tuple[int, int]] = []
        # The heap that replaces it, while :meth:`tidy` is at work.
        self._fresh: list[tuple[int, int]] | None = None
        # Apart from the entries: a job that was removed and added again may still be running.
        self._running: set[int] = set()
        # Jobs whose first run waits for the end of a run of what they were before.
        self._postponed: set[int] = set()
        # The latest time since the clock was last set back.
        self._latest_ms = 0
        self._started_ms = 0
        self.missed_total = 0

    def add(self, job_id: int, interval: float, now: float, *, first: float | None = None) -> bool:
        """Schedule a job: its interval in s, and the time of a ``first`` run off its grid, if any.

        Keeps the state of a job whose interval is the same. Returns whether the first run is off
        the grid: a time on it that comes soon is soon enough.
        """
        now_ms, interval_ms = int(now * 1000), round(interval * 1000)
        self._latest_ms = max(self._latest_ms, now_ms)
        entry = self._entries.get(job_id)
        is_new = entry is None or entry.interval_ms != interval_ms
        if entry is None or is_new:
            entry = _Entry(interval_ms, due_after(job_id, interval_ms, now_ms))
            self._entries[job_id] = entry
        at_once = first is not None and entry.due_ms > int(first * 1000) + _GRACE_MS
        if first is not None and at_once:
            entry.due_ms, entry.at_once = int(first * 1000), True
        if is_new or at_once:
            self._push(entry.due_ms, job_id)
        return at_once

    def remove(self, job_id: int) -> None:
        """Forget a job, if it is known."""
        self._entries.pop(job_id, None)

    def start(self, now: float) -> None:
        """Take the next times on the grid after ``now``: those before were nobody's to run."""
        self._started_ms = int(now * 1000)

    def _push(self, due_ms: int, job_id: int) -> None:
        heapq.heappush(self._heap, (due_ms, job_id))
        if self._fresh is not None:
            heapq.heappush(self._fresh, (due_ms, job_id))

    def tidy(self) -> Iterator[None]:
        """Forget times that are no longer those of jobs, if there are many; a step for each job.

        Between two steps anything may be called.
        """
        under_way = self._fresh is not None
        if not under_way and len(self._heap) > 2 * len(self._entries) + _MOST_STALE:
            yield from self._rebuild()

    def follow_clock(self, now: float) -> Iterator[None]:
        """After the clock was set back, plan runs on the grid of its new time; a step for each job.

        Between two steps anything may be called. If not all are taken, the next call begins again.
        """
        now_ms = int(now * 1000)
        if now_ms < self._latest_ms - _GRACE_MS:
            yield from self._rebuild(now_ms)

    def _rebuild(self, now_ms: int | None = None) -> Iterator[None]:
        """Put the next run of each job into another heap, which then takes the place of this one.

        With a time to which the clock was set back, plan these runs again.
        """
        fresh: list[tuple[int, int]] = []
        self._fresh = fresh
        for job_id, entry in list(self._entries.items()):
            # One that was added meanwhile is in both heaps.
            if self._entries.get(job_id) is entry:
                if now_ms is not None:
                    entry.due_ms = due_after(job_id, entry.interval_ms, now_ms)
                    entry.at_once = False
                heapq.heappush(fresh, (entry.due_ms, job_id))
            yield
            if self._fresh is not fresh:
                return
        if now_ms is not None:
            self._latest_ms, self._started_ms = now_ms, 0
        self._heap, gone = fresh, self._heap
        self._fresh = None
        while gone:
            gone.pop()
            yield

    def due(self, now: float) -> list[Run]:
        """Return runs to start now, in the order in which they were due; more may be due, too.

        Each job returned is running until :meth:`finished` is called for it. After the clock was
        set back, runs follow the grid of its new time at once.
        """
        now_ms = int(now * 1000)
        for _ in self.follow_clock(now):
            pass
        self._latest_ms = max(self._latest_ms, now_ms)
        runs = []
        for _ in range(_MOST_DUE):
            if not self._heap or self._heap[0][0] > now_ms:
                break
            due_ms, job_id = heapq.heappop(self._heap)
            entry = self._entries.get(job_id)
            if entry is None or entry.due_ms != due_ms:
                continue
            at_once = entry.at_once
            if due_ms <= self._started_ms and not at_once:
                entry.due_ms = due_after(job_id, entry.interval_ms, self._started_ms)
                self._push(entry.due_ms, job_id)
                continue
            # The last time on the grid up to now; earlier ones are missed.
            if at_once:
                late, last_ms = 0, due_ms
                entry.due_ms = due_after(job_id, entry.interval_ms, now_ms)
                entry.at_once = False
            else:
                late = (now_ms - due_ms) // entry.interval_ms
                last_ms = due_ms + late * entry.interval_ms
                entry.due_ms = last_ms + entry.interval_ms
            self._push(entry.due_ms, job_id)
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
                self._push(entry.due_ms, job_id)

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
