"""What alerts need to know of the jobs, whichever part or table they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ["JobFacts", "Jobs", "dependencies_of"]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """One job; ``running`` is false for one that is inactive or stopped. Times in s."""

    id: int
    name: str
    url: str
    interval: float
    timeout: float = 10.0
    retries: int = 0
    tags: tuple[str, ...] = ()
    depends_on: tuple[int, ...] = ()
    running: bool = True

    @property
    def title(self) -> str:
        """What to call it."""
        return self.name or self.url

    @property
    def slowest_s(self) -> float:
        """The longest time from the start of a check to its result."""
        return self.timeout * (self.retries + 1)


class Jobs(Protocol):
    """Where the jobs come from."""

    async def run(self) -> None:
        """Keep the jobs up to date until cancelled."""

    def all(self) -> Mapping[int, JobFacts] | None:
        """Return all jobs by id; None while they are not known."""


def dependencies_of(jobs: Mapping[int, JobFacts], job_id: int) -> Iterator[JobFacts]:
    """Yield the running jobs that a job depends on, directly or through others, nearest first."""
    seen = {job_id}
    waiting = [job_id]
    while waiting:
        found = jobs.get(waiting.pop(0))
        for other in found.depends_on if found is not None else ():
            if other in seen:
                continue
            seen.add(other)
            waiting.append(other)
            facts = jobs.get(other)
            if facts is not None and facts.running:
                yield facts
