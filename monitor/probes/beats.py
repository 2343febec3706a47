"""The last heartbeat of each job of that kind, and when the next one is late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from monitor.probes.no_result import NoResultError

__all__ = ["Beat", "Beats", "NoBeatYetError"]

# A beat that comes at the very end of its time is not late.
_TOLERANCE_S = 0.05
# After a start, in which beats may have been lost, the next one is awaited, in s, at most.
_AFTER_START_S = 300.0


class NoBeatYetError(NoResultError):
    """No beat came so far, and none is late."""

    def __init__(self, job_id: int, problem: str = "no heartbeat came yet") -> None:
        super().__init__(f"job {job_id}: {problem}")


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat: when it came in epoch s, and what it reported."""

    at: float
    up: bool = True
    message: str = ""


class Beats:
    """Knows the last beats; belongs to the loop's thread.

    Ages are those of ``clock`` in s, which nobody sets. ``on_late`` is called with a job's id when
    its next beat has not come in time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_late: Callable[[int], None] = lambda _: None
        self.clock = clock
        self._started_at = clock()
        # Each with when it came by the clock.
        self._last: dict[int, tuple[float, Beat]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def last(self, job_id: int) -> tuple[float, Beat] | None:
        """Return the last beat, and when it came by the clock."""
        return self._last.get(job_id)

    def take(self, job_id: int, beat: Beat, came_at: float) -> bool:
        """Take a beat; return False for one that is older than the last."""
        known = self._last.get(job_id)
        if known is not None and known[0] > came_at:
            return False
        self._last[job_id] = came_at, beat
        return True

    def restore(self, job_id: int, beat: Beat, now: float) -> None:
        """Take a beat that came before the start; ``now`` is in epoch s, as ``beat.at``."""
        self.take(job_id, beat, min(self.clock() - (now - beat.at), self._started_at))

    def awaited_until(self, within_s: float) -> float:
        """Return until when nothing is late, by the clock: beats may have come before the start."""
        return self._started_at + min(within_s, _AFTER_START_S)

    def expect(self, job_id: int, within_s: float) -> None:
        """Expect the next beat within a time; it replaces an earlier expectation."""
        self.forget_timer(job_id)
        loop = asyncio.get_running_loop()
        self._timers[job_id] = loop.call_later(max(within_s, 0) + _TOLERANCE_S, self._late, job_id)

    def _late(self, job_id: int) -> None:
        self._timers.pop(job_id, None)
        self.on_late(job_id)

    def forget_timer(self, job_id: int) -> None:
        """Expect nothing any more."""
        timer = self._timers.pop(job_id, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Stop all timers."""
        for job_id in list(self._timers):
            self.forget_timer(job_id)
