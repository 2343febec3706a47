"""Which jobs depend on which; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from monitor.probes.job import Job
from monitor.yielding import in_slices

__all__ = ["CIRCULAR", "Dependents", "circular_jobs", "failed_dependency"]

# Each round ends every chain at both sides. What a job depends on is followed at each of its
# results, so a chain of thousands would cost thousands of steps for each of its jobs.
_ROUNDS = 50
CIRCULAR = f"jobs depend on each other in a circle, or in a chain of more than {2 * _ROUNDS}"


def circular_jobs(jobs: Iterable[Job]) -> set[int]:
    """Return the ids of the jobs that depend on each other in a circle.

    They would hide each other's outage. A job on the way from one circle to another is included,
    and what is left of a chain that is too long.
    """
    depends = {job.id: set(job.depends_on) for job in in_slices(jobs) if job.depends_on}
    # What is left when nothing more ends the chains downwards, then upwards, is circles alone
    # and what connects them.
    for _ in range(_ROUNDS):
        ends = {job_id for job_id, on in in_slices(depends.items()) if not on & depends.keys()}
        named: set[int] = set()
        for on in in_slices(depends.values()):
            named |= on
        ends |= depends.keys() - named
        if not ends:
            break
        for job_id in ends:
            del depends[job_id]
    return set(depends)


def failed_dependency(
    job: Job, jobs: Mapping[int, Job], is_down: Callable[[int], bool]
) -> int | None:
    """Return the id of a job that is down and that ``job`` depends on, also indirectly, or None.

    Of several, the first as the job lists them. Ids without a job are ignored.
    """
    waiting = list(reversed(job.depends_on))
    seen = set()
    while waiting:
        job_id = waiting.pop()
        if job_id in seen or job_id not in jobs:
            continue
        seen.add(job_id)
        if is_down(job_id):
            return job_id
        waiting.extend(reversed(jobs[job_id].depends_on))
    return None


class Dependents:
    """Which jobs depend on a job."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._direct: dict[int, list[int]] = {}
        self.count = 0
        """How many dependencies there are in all jobs together."""
        for job in jobs:
            self.count += len(job.depends_on)
            for job_id in job.depends_on:
                self._direct.setdefault(job_id, []).append(job.id)

    def __contains__(self, job_id: object) -> bool:
        """Return whether any job depends on this one."""
        return job_id in self._direct

    def direct(self, job_id: int) -> Sequence[int]:
        """Return the ids of the jobs that list this one."""
        return self._direct.get(job_id, ())

    def of(self, job_ids: Iterable[int]) -> Iterator[int]:
        """Yield the ids of the jobs that depend on one of these, also indirectly.

        One that depends on several of them is yielded more than once: each dependency is a step.
        """
        found: set[int] = set()
        waiting = list(job_ids)
        while waiting:
            for dependent in self._direct.get(waiting.pop(), ()):
                if dependent not in found:
                    found.add(dependent)
                    waiting.append(dependent)
                yield dependent
