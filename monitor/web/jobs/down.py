"""Which jobs are down, and which others show something else because of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from monitor.probes.dependencies import Dependents, failed_dependency
from monitor.probes.job import Job
from monitor.yielding import in_turns

__all__ = ["DownJobs"]

# A touched job costs less than a microsecond; a job that turns may have thousands of dependents.
_AT_ONCE = 100
# Dependencies that may be followed at once, which takes about a millisecond.
_MOST_FOLLOWED = 20_000


class DownJobs:
    """The ids of the jobs that are down; belongs to the loop's thread.

    When a job goes down or up, ``touch`` is called for each that depends on it: for some at once,
    and for the others in the next turns of the loop.
    """

    def __init__(self, touch: Callable[[int], None]) -> None:
        self.ids: set[int] = set()
        self.is_touching = False
        """Whether there are jobs that ``touch`` is not yet called for."""
        self._touch = touch
        self._dependents = Dependents(())
        # Jobs whose dependents come next.
        self._turned: set[int] = set()
        # Where there are too many dependencies to follow them for each job that is asked for:
        # the jobs that depend on one that is down, with its id; and whether that is to be renewed.
        self._behind: dict[int, int] = {}
        self._stale = False

    @property
    def _are_many(self) -> bool:
        return self._dependents.count > _MOST_FOLLOWED

    def relisted(self, dependents: Dependents) -> None:
        """Take which jobs depend on which, after a change of their list."""
        self._dependents = dependents
        if self._are_many or self._behind:
            self._stale = True
            self._begin()

    def dependency(self, job: Job, jobs: Mapping[int, Job]) -> int | None:
        """Return the id of a job that is down and that ``job`` depends on, or None.

        Indirect dependencies count. Where there are very many, it is what was known before the
        turns of the loop in which they are followed.
        """
        if self._are_many:
            return self._behind.get(job.id)
        return failed_dependency(job, jobs, self.ids.__contains__) if self.ids else None

    def take(self, job_id: int, *, down: bool, moved: bool = False) -> None:
        """Take whether a job is down, and whether it ``moved`` behind other jobs."""
        if down != (job_id in self.ids):
            self.ids ^= {job_id}
            moved = True
        if moved and job_id in self._dependents:
            self._turned.add(job_id)
            self._begin()

    def _begin(self) -> None:
        if not self.is_touching:
            self.is_touching = True
            in_turns(self._touch_dependents(), at_once=_AT_ONCE)

    def _touch_dependents(self) -> Iterator[None]:
        while self._turned or self._stale:
            turned, self._turned = self._turned, set()
            if self._stale or self._are_many:
                self._stale = False
                yield from self._touch_those_behind()
            else:
                for job_id in self._dependents.of(turned):
                    self._touch(job_id)
                    yield
        self.is_touching = False

    def _touch_those_behind(self) -> Iterator[None]:
        """Find out which jobs are behind others, and touch those for which that has changed."""
        behind: dict[int, int] = {}
        dependents, are_many = self._dependents, self._are_many
        for down in list(self.ids) if are_many else ():
            yield
            waiting = [down]
            while waiting:
                for job_id in dependents.direct(waiting.pop()):
                    yield
                    if job_id not in behind:
                        behind[job_id] = down
                        waiting.append(job_id)
        before, self._behind = self._behind, behind
        for job_id in before.keys() | behind.keys():
            if before.get(job_id) != behind.get(job_id):
                self._touch(job_id)
            yield
