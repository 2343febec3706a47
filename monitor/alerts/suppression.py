"""What keeps an incident from being sent, and when to look again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from monitor.alerts.jobs import JobFacts, dependencies_of
from monitor.alerts.maintenance import open_until
from monitor.alerts.matching import matches
from monitor.alerts.settings import Maintenance, Match
from monitor.alerts.silences import Silence

__all__ = ["LONGEST_LOOK_S", "Dependency", "Subject", "Suppression", "Surroundings"]

LONGEST_LOOK_S = 60.0
"""An end that is further away (s) is looked for again: the clock may be set."""

_DEPENDENCY_LOOK_S = 1.0
_FLAPPING_LOOK_S = 15.0
# The longest wait for a result of a dependency.
_LONGEST_WAIT_S = 120.0


class Suppression(NamedTuple):
    """What suppresses an incident, and when to look again (s since the epoch)."""

    by: str
    look_at: float


class Dependency(NamedTuple):
    """The last result of a job that others depend on: its state, since when, and its time."""

    down: bool
    since: float
    seen_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to know of an incident here; ``since`` and ``bad_at`` of its subject's trouble."""

    rule: str
    watch: str
    subject: str
    job_id: int | None
    opened_at: float
    noted_at: float
    since: float
    bad_at: float
    announced: bool


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """Everything that suppresses, at the time ``now``.

    ``flapping`` has the number of incidents that were sent lately, by rule and subject, where
    these are too many.
    """

    now: float
    jobs: Mapping[int, JobFacts]
    maintenance: Sequence[Maintenance] = ()
    silences: Sequence[Silence] = ()
    dependencies: Mapping[int, Dependency] = field(default_factory=dict)
    flapping: Mapping[tuple[str, str], int] = field(default_factory=dict)
    flapping_within: float = 1800.0
    group_wait: float = 0.0

    def suppression(self, subject: Subject) -> Suppression | None:
        """Return what suppresses an incident now, the most lasting reason first."""
        looks: Sequence[Callable[[Subject], Suppression | None]] = (
            self._by_maintenance,
            self._by_silence,
            self._by_dependency,
            self._by_flapping,
        )
        for look in looks:
            found = look(subject)
            if found is not None:
                return found
        return None

    def _fits(self, match: Match, subject: Subject) -> bool:
        facts = self.jobs.get(subject.job_id) if subject.job_id is not None else None
        return matches(
            match,
            subject=subject.subject,
            watch=subject.watch,
            rule=subject.rule,
            job_id=subject.job_id,
            tags=() if facts is None else facts.tags,
        )

    def _by_maintenance(self, subject: Subject) -> Suppression | None:
        for window in self.maintenance:
            end = open_until(window, self.now)
            if end is not None and self._fits(window.match, subject):
                return Suppression(f"maintenance {window.name}", self._at(end))
        return None

    def _by_silence(self, subject: Subject) -> Suppression | None:
        for silence in self.silences:
            # One that began when it was made has begun, even if the clock there was ahead of ours.
            begun = silence.starts_at <= max(self.now, silence.created_at)
            if begun and self.now < silence.until and self._fits(silence.match, subject):
                return Suppression(f"silence {silence.id}", self._at(silence.until))
        return None

    def _by_dependency(self, subject: Subject) -> Suppression | None:
        if subject.watch != "site" or subject.job_id is None or subject.announced:
            return None
        for facts in dependencies_of(self.jobs, subject.job_id):
            found = self.dependencies.get(facts.id)
            by = f"job {facts.id}"
            look_at = self.now + _DEPENDENCY_LOOK_S
            if found is not None and found.down:
                return Suppression(by, look_at)
            # It was down while the subject failed; wait for a failure since it is up.
            if found is not None and subject.since <= found.since and subject.bad_at < found.since:
                return Suppression(by, look_at)
            # The failure may be its fault, which its next result shows.
            patience = min(
                facts.interval + facts.slowest_s + self.group_wait + _DEPENDENCY_LOOK_S,
                _LONGEST_WAIT_S,
            )
            seen_at = 0.0 if found is None else found.seen_at
            waited_s = abs(self.now - subject.noted_at)
            if seen_at < subject.since and waited_s < patience:
                return Suppression(f"{by}, whose next result is awaited", look_at)
        return None

    def _by_flapping(self, subject: Subject) -> Suppression | None:
        count = self.flapping.get((subject.rule, subject.subject))
        if count is None or subject.announced:
            return None
        # Long enough in trouble not to be called flapping.
        if abs(self.now - subject.noted_at) >= self.flapping_within / 6:
            return None
        minutes = max(1, round(self.flapping_within / 60))
        return Suppression(
            f"flapping, {count} incidents in {minutes} min", self.now + _FLAPPING_LOOK_S
        )

    def _at(self, end: float) -> float:
        return min(end, self.now + LONGEST_LOOK_S)
