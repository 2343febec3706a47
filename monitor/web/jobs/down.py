"""Which jobs are down, and which others show something else because of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from monitor.probes.dependencies import Dependents
from monitor.yielding import in_turns

__all__ = ["DownJobs"]

# A touched job costs less than a microsecond; a job that turns may have thousands of dependents.
_AT_ONCE = 100


class DownJobs:
    """The ids of the jobs that are down; belongs to the loop's thread.

    When a job goes down or up, ``touch`` is called for each that depends on it: for some at once,
    and for the others in the next turns of the loop.
    """

    def __init__(self, touch: Callable[[int], None]) -> None:
        self.ids: set[int] = set()
        self.dependents = Dependents(())
        self.is_touching = False
        """Whether there are jobs that ``touch`` is not yet called for."""
        self._touch = touch
        # Jobs whose dependents come next.
        self._turned: set[int] = set()

    def take(self, job_id: int, *, down: bool, moved: bool = False) -> None:
        """Take whether a job is down, and whether it ``moved`` behind other jobs."""
        if down != (job_id in self.ids):
            self.ids ^= {job_id}
            moved = True
        if moved and job_id in self.dependents:
            self._turned.add(job_id)
            if not self.is_touching:
                self.is_touching = True
                in_turns(self._touch_dependents(), at_once=_AT_ONCE)

    def _touch_dependents(self) -> Iterator[None]:
        while self._turned:
            turned, self._turned = self._turned, set()
            for job_id in self.dependents.of(turned):
                self._touch(job_id)
                yield
        self.is_touching = False
