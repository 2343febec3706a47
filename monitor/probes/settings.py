"""The section ``probes`` of the config."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import msgspec

from monitor.errors import SettingError
from monitor.probes.checks import AnyJob, with_kind
from monitor.probes.dependencies import CIRCULAR, circular_jobs
from monitor.probes.job import Job
from monitor.settings import Count, Reloadable, Section, raise_all, verify_each

__all__ = ["ProbesSettings", "verify_jobs", "verify_topic"]

Location = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_TOPIC_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class ProbesSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``probes``: what to check, and where results go."""

    # where results go
    topic: str = "website_availability"
    # where jobs come from; jobs_file and jobs are used only by their own source. A reload switches
    # between config and file; a change to database waits for a restart
    source: Reloadable[Literal["config", "file", "database"]] = "config"
    # JSON or YAML, a list of jobs with the keys below; read again when it changes
    jobs_file: Reloadable[str | None] = None
    # active sites of one producer
    websites_per_container: Reloadable[Count] = 1000
    # a producer's range of the active sites, from 1; null: all sites
    id: Reloadable[Count | None] = None
    # where this producer is, such as prague. Producers in several locations check the same sites; a
    # site is down if a quorum of the locations says so. null: there is one location
    location: Reloadable[Location | None] = None
    # locations in which a site must be down to be down, so fewer find no outage; null: more than
    # half of those that report. Needs location
    quorum: Reloadable[Annotated[int, msgspec.Meta(ge=1, le=100)] | None] = None
    # attempts that are open at once
    concurrency: Reloadable[Annotated[int, msgspec.Meta(ge=1, le=20_000)]] = 500
    # what to check, for source: config
    jobs: Reloadable[list[AnyJob]] = msgspec.field(default_factory=list)

    @classmethod
    def completed(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Give each job its kind."""
        jobs = data.get("jobs")
        return {**data, "jobs": [*map(with_kind, jobs)]} if isinstance(jobs, list) else data

    def verify(self) -> None:
        """Check the topic's name, and every job of the config."""
        verify_each(
            # First: a job that is left out shows the errors of the next one.
            lambda: verify_jobs(self.jobs),
            lambda: verify_topic(self.topic),
            self._verify_file,
            self._verify_quorum,
        )

    def _verify_file(self) -> None:
        if self.source == "file" and not self.jobs_file:
            raise SettingError(("jobs_file",), "source: file needs it")

    def _verify_quorum(self) -> None:
        if self.quorum is not None and self.location is None:
            raise SettingError(("quorum",), "needs location: a quorum counts locations")

    def adopting(self, new: ProbesSettings) -> ProbesSettings:
        """Keep the source of the jobs where the new one is a database: only a start opens it."""
        adopted = super().adopting(new)
        if new.source == "database" != self.source:
            adopted = adopted.replace(source=self.source, jobs_file=self.jobs_file, jobs=self.jobs)
        return adopted


def verify_topic(topic: str) -> None:
    """Raise SettingError for a name that Kafka would refuse."""
    if not 0 < len(topic) < 250 or not set(topic) <= _TOPIC_LETTERS or topic in (".", ".."):
        problem = f"{topic[:250]!r} is not a topic name: up to 249 letters, digits, '.', '_', '-'"
        raise SettingError(("topic",), problem)


def verify_jobs(jobs: list[Job]) -> None:
    """Check every job and that ids are unique; raise SettingError for all problems."""
    ids = {job.id for job in jobs}
    seen: dict[int, int] = {}
    errors: list[SettingError] = []
    for number, job in enumerate(jobs):
        first = seen.setdefault(job.id, number)
        if first != number:
            problem = f"jobs[{first}] also has the id {job.id}"
            errors.append(SettingError(("jobs", number, "id"), problem))
            continue
        unknown = [job_id for job_id in job.depends_on if job_id not in ids]
        try:
            verify_each(
                partial(_verify_job, number, job),
                *(partial(_refuse_dependency, number, job_id) for job_id in unknown),
            )
        except SettingError as error:
            errors += [error, *error.others]
    raise_all(errors)
    circular = circular_jobs(jobs)
    for number, job in enumerate(jobs):
        if job.id in circular:
            raise SettingError(("jobs", number, "depends_on"), CIRCULAR)


def _verify_job(number: int, job: Job) -> None:
    try:
        job.verify()
    except SettingError as error:
        raise error.under("jobs", number) from None


def _refuse_dependency(number: int, job_id: int) -> None:
    raise SettingError(
        ("jobs", number, "depends_on"),
        f"there is no job {job_id}",
        among=(("jobs",), "id", job_id),
    )
