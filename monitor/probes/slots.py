"""Which of the due runs may start, as only a limited number may be open at once; pure."""

from __future__ import annotations

from collections import deque

from monitor.probes.schedule import Run

__all__ = ["Slots"]


class Slots:
    """Gives ``limit`` slots to runs, those due for longest first.

    Jobs whose last run was slow get half of the slots at most, so that sites that hang until
    their timeouts do not delay checks of those that answer.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0
        self._open_slow = 0
        self._waiting: deque[Run] = deque()
        self._waiting_slow: deque[Run] = deque()

    def offer(self, run: Run, *, slow: bool) -> None:
        """Queue a due run; ``slow`` means that its job's last run was slow."""
        (self._waiting_slow if slow else self._waiting).append(run)

    def take(self) -> tuple[Run, bool] | None:
        """Return the run to start now and whether it holds a slow slot, or None.

        Each run returned holds a slot until :meth:`release`.
        """
        if self.open >= self.limit:
            return None
        slow = bool(self._waiting_slow) and self._open_slow < max(1, self.limit // 2)
        if slow and self._waiting:
            slow = self._waiting_slow[0].scheduled_at < self._waiting[0].scheduled_at
        queue = self._waiting_slow if slow else self._waiting
        if not queue:
            return None
        self.open += 1
        self._open_slow += slow
        return queue.popleft(), slow

    def claim(self) -> None:
        """Open a slot beyond the limit, for a check that a person waits for."""
        self.open += 1

    def release(self, *, slow: bool) -> None:
        """Give a slot back."""
        self.open -= 1
        self._open_slow -= slow

    @property
    def waiting(self) -> int:
        """How many due runs have no slot."""
        return len(self._waiting) + len(self._waiting_slow)
