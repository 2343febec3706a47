"""When to check: a grid a job, for ever; pure, time comes in as an argument.

A job's runs are due at ``(k + phase) * interval`` since the epoch, for every whole k, where
the phase is a hash of the job's id. So starts are spread evenly over the interval, and a
reload, a restart or another producer finds the very same grid. All is counted in whole
microseconds: nothing drifts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Run", "Schedule", "due_after", "phase"]

_MASK = (1 << 64) - 1
# A run that comes up later than this (the loop was stopped, the machine slept) is missed.
_GRACE_US = 1_000_000


def phase(job_id: int) -> float:
    """Return the job's place in its interval, from 0 to below 1: splitmix64 of its id.

    Source: Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014).
    """
    mixed = (job_id * 0x9E3779B97F4A7C15) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    mixed ^= mixed >> 31
    return (mixed >> 11) / (1 << 53)


def due_after(job_id: int, interval_us: int, now_us: int) -> int:
    """Return the first time on the job's grid after ``now_us``, all in epoch microseconds."""
    start = int(phase(job_id) * interval_us)
    return now_us + interval_us - (now_us - start) % interval_us


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is due: for which job, at which time on its grid (epoch s), after how many
    runs that were missed."""

    job_id: int
    scheduled_at: float
    missed: int


class _Entry:
    __slots__ = ("due_us", "interval_us", "missed", "running")

    def __init__(self, interval_us: int, due_us: int) -> None:
        self.interval_us = interval_us
        self.due_us = due_us
        self.missed = 0
        self.running = False


class Schedule:
    """The next run of every job. Wall-clock times are epoch seconds.

    A job never overlaps itself: a run that comes due while the one before is not finished is
    missed. So is one that comes up more than a second late. Missed runs are never made up
    for; they are counted, and the next run says how many they were.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._heap: list[tuple[int, int]] = []
        self._last_us: int | None = None
        self.missed_total = 0

    def set_jobs(self, intervals: Iterable[tuple[int, float]], now: float) -> None:
        """Schedule exactly these jobs, ids with their intervals in s.

        What was known of a job that stays with its interval is kept.
        """
        now_us = _us(now)
        entries: dict[int, _Entry] = {}
        for job_id, interval in intervals:
            interval_us = _us(interval)
            known = self._entries.get(job_id)
            if known is not None and known.interval_us == interval_us:
                entries[job_id] = known
                continue
            entry = _Entry(interval_us, due_after(job_id, interval_us, now_us))
            # A run of the old grid may still be under way.
            entry.running = known is not None and known.running
            entries[job_id] = entry
        self._entries = entries
        self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(entry.due_us, job_id) for job_id, entry in self._entries.items()]
        heapq.heapify(self._heap)

    def due(self, now: float) -> list[Run]:
        """Return the runs to start now, in the order in which they were due.

        Each job returned is running until :meth:`finished` is called for it. A clock set back
        gives back the grid at once, instead of silence until it has caught up.
        """
        now_us = _us(now)
        if self._last_us is not None and now_us < self._last_us - _GRACE_US:
            for job_id, entry in self._entries.items():
                entry.due_us = due_after(job_id, entry.interval_us, now_us)
            self._rebuild()
        self._last_us = now_us
        runs = []
        heap = self._heap
        while heap and heap[0][0] <= now_us:
            due_us, job_id = heap[0]
            entry = self._entries[job_id]
            # The last time on the grid up to now; those before it are missed in any case.
            late = (now_us - due_us) // entry.interval_us
            last_us = due_us + late * entry.interval_us
            entry.due_us = last_us + entry.interval_us
            heapq.heapreplace(heap, (entry.due_us, job_id))
            self._miss(entry, late)
            if entry.running or now_us - last_us > _GRACE_US:
                self._miss(entry, 1)
                continue
            entry.running = True
            runs.append(Run(job_id, last_us / 1e6, entry.missed))
            entry.missed = 0
        return runs

    def _miss(self, entry: _Entry, count: int) -> None:
        entry.missed += count
        self.missed_total += count

    def finished(self, job_id: int) -> None:
        """Say that the job's run is over."""
        entry = self._entries.get(job_id)
        if entry is not None:
            entry.running = False

    def missed(self, run: Run) -> None:
        """Say that a run was not started after all: it counts as missed, with what it carried."""
        entry = self._entries.get(run.job_id)
        if entry is not None:
            entry.running = False
            entry.missed += run.missed
            self._miss(entry, 1)

    def next_due(self, job_id: int | None = None) -> float | None:
        """Return when the next run of the job, or of any, is due; None where there's none."""
        if job_id is not None:
            entry = self._entries.get(job_id)
            return None if entry is None else entry.due_us / 1e6
        return self._heap[0][0] / 1e6 if self._heap else None


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
