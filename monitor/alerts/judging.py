"""Judges results by the rules for sites and certificates: a state machine without I/O.

:meth:`ResultJudge.judge` changes nothing. The caller commits the changes that it returns, together
with the offsets of the messages, and then calls :meth:`ResultJudge.apply`. If the commit fails, the
same messages are judged again from the same states.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from monitor.alerts.incidents import Changes, Resolved, State
from monitor.alerts.jobs import JobFacts
from monitor.alerts.located import LOCATIONS, Locations, known_locations
from monitor.alerts.matching import matches
from monitor.alerts.result_view import ResultView
from monitor.alerts.settings import CertificateRule, Rule, SiteRule
from monitor.alerts.transitions import Observed, Transition
from monitor.locations import silent_after_s
from monitor.validation import one_line

__all__ = ["Judged", "ResultJudge"]

# How many results of a job are remembered, to recognize one that is delivered again.
_RECENT = 16
# After which a location does not count for a job that is not known.
_SILENT_S = 3600.0

_Seen = int | tuple[int, str]
"""A job, or one of its locations."""


@dataclass(slots=True)
class Judged(Changes):
    """The changes by some results, which results they were, and the locations of their jobs."""

    seen: dict[_Seen, tuple[float, ...]] = field(default_factory=dict)
    located: dict[int, Locations] = field(default_factory=dict)


class ResultJudge:
    """The rules for sites and certificates, with the states of some jobs."""

    def __init__(self) -> None:
        self._site: Sequence[SiteRule] = ()
        self._certificate: Sequence[CertificateRule] = ()
        self._jobs: Mapping[int, JobFacts] | None = None
        self._dependencies: frozenset[int] = frozenset()
        self._rules_of: dict[int, tuple[list[SiteRule], list[CertificateRule]]] = {}
        self._names: frozenset[str] = frozenset()
        # By job, the states by rule.
        self._states: dict[int, dict[str, State]] = {}
        self._seen: dict[_Seen, tuple[float, ...]] = {}
        # Of jobs that are checked from several, and those of them that have too few.
        self._located: dict[int, Locations] = {}
        self._few: set[int] = set()

    def adopt(self, rules: Iterable[Rule], jobs: Mapping[int, JobFacts] | None) -> None:
        """Use these rules and jobs from now on; cheap if they have not changed."""
        rules = list(rules)
        site = [rule for rule in rules if isinstance(rule, SiteRule)]
        certificate = [rule for rule in rules if isinstance(rule, CertificateRule)]
        if jobs is self._jobs and site == self._site and certificate == self._certificate:
            return
        self._site, self._certificate, self._jobs = site, certificate, jobs
        self._names = frozenset(rule.name for rule in (*site, *certificate))
        self._rules_of.clear()
        self._dependencies = frozenset(
            other for facts in (jobs or {}).values() for other in facts.depends_on
        )

    def load(self, states: Iterable[tuple[str, str, State]]) -> None:
        """Forget everything, and take these states of rules and subjects."""
        self._states.clear()
        self._seen.clear()
        self._located.clear()
        self._few.clear()
        for rule, subject, state in states:
            if rule == LOCATIONS:
                self._located[int(subject)] = known_locations(state)
            elif subject.isdecimal():
                self._states.setdefault(int(subject), {})[rule] = state

    def states(self) -> dict[tuple[str, str], State]:
        """Return all states by rule and subject."""
        located = {
            (LOCATIONS, str(job_id)): locations.state()
            for job_id, locations in self._located.items()
        }
        return located | {
            (rule, str(job_id)): state
            for job_id, states in self._states.items()
            for rule, state in states.items()
        }

    def apply(self, judged: Changes) -> None:
        """Take changes that are committed."""
        if isinstance(judged, Judged):
            self._seen.update(judged.seen)
            for job_id, located in judged.located.items():
                self._located[job_id] = located
                if located.too_few:
                    self._few.add(job_id)
                else:
                    self._few.discard(job_id)
        for (rule, subject), state in judged.states.items():
            job_id = int(subject)
            if rule == LOCATIONS:
                if state is None:
                    self._located.pop(job_id, None)
                    self._few.discard(job_id)
                continue
            states = self._states.setdefault(job_id, {})
            if state is None:
                states.pop(rule, None)
            else:
                states[rule] = state
            if not states:
                del self._states[job_id]

    def judge(self, observed: Iterable[Observed]) -> Judged:
        """Return what these results change, in their order."""
        judged = Judged()
        pending: dict[int, dict[str, State]] = {}
        nothing: dict[str, State] = {}
        # Most results are good and change nothing: what they need is looked up once.
        seen, known, stored = judged.seen, self._seen, self._states
        dependencies = self._dependencies
        for each in observed:
            result = each.result
            job_id = result.job_id
            one: _Seen = (job_id, result.location) if result.location else job_id
            recent = seen.get(one) or known.get(one, ())
            if recent and result.scheduled_at <= recent[-1] and result.scheduled_at in recent:
                continue
            seen[one] = (*recent[1 - _RECENT :], result.scheduled_at)
            located = None
            if one is not job_id or job_id in self._located or job_id in judged.located:
                located = self._locations(result, judged)
            changed = pending.get(job_id)
            states = changed if changed is not None else stored.get(job_id, nothing)
            site, certificate = self._rules_of.get(job_id) or self._rules_of_job(job_id)
            if job_id in dependencies:
                states = pending[job_id] = dict(states)
                Transition(each, states, judged, None).note_dependency(located)
            if (
                result.up
                and not result.degraded
                and not states
                and (not certificate or result.certificate_expires_at is None)
            ):
                continue
            if job_id not in pending:
                states = pending[job_id] = dict(states)
            transition = Transition(each, states, judged, (self._jobs or {}).get(job_id))
            for rule in site:
                if located is None:
                    transition.judge_site(rule)
                else:
                    transition.judge_located(rule, located)
            for cert_rule in certificate:
                transition.judge_certificate(cert_rule, located)
            applied = {rule.name for rule in (*site, *certificate)}
            for name in [name for name in states if name and name not in applied]:
                transition.judge_orphan(name, removed=name not in self._names)
        return judged

    def remember(self, results: Iterable[ResultView]) -> None:
        """Take note of results that were judged before, to recognize those that come again."""
        for result in results:
            job_id = result.job_id
            one: _Seen = (job_id, result.location) if result.location else job_id
            recent = self._seen.get(one, ())
            if result.scheduled_at not in recent:
                self._seen[one] = (*recent[1 - _RECENT :], result.scheduled_at)

    def too_few(self) -> str | None:
        """Return what it means that jobs have fewer locations than their quorum; None: none has."""
        jobs = self._jobs or {}
        few = sorted(job_id for job_id in self._few if job_id not in jobs or jobs[job_id].running)
        if not few or not self._site:
            return None
        located, facts = self._located[few[0]], jobs.get(few[0])
        name = f"job {few[0]}" if facts is None else facts.title
        more = f" (and {len(few) - 1} more)" if len(few) > 1 else ""
        return one_line(
            f"{name} is checked only from {', '.join(sorted(located.heard_at))}, and its quorum is"
            f" {located.quorum}: it cannot be found down{more}"
        )

    def gone(self, now: float) -> Judged:
        """Return what it changes that jobs were removed or stopped: their incidents end."""
        judged = Judged()
        if self._jobs is None:
            return judged
        for job_id in self._located.keys() - self._jobs.keys():
            judged.state(LOCATIONS, str(job_id), None)
        for job_id, states in self._states.items():
            facts = self._jobs.get(job_id)
            if facts is not None and facts.running:
                continue
            note = "the job was removed" if facts is None else "the job was stopped"
            for name, state in states.items():
                if state.incident is not None:
                    judged.resolved.append(Resolved(state.incident, now, note))
                judged.state(name, str(job_id), None)
        return judged

    def _rules_of_job(self, job_id: int) -> tuple[list[SiteRule], list[CertificateRule]]:
        found = self._rules_of.get(job_id)
        if found is None:
            facts = (self._jobs or {}).get(job_id)
            tags = () if facts is None else facts.tags

            def applies(rule: Rule) -> bool:
                return matches(
                    rule.match,
                    subject=str(job_id),
                    watch=rule.watch,
                    rule=rule.name,
                    job_id=job_id,
                    tags=tags,
                )

            found = self._rules_of[job_id] = (
                [rule for rule in self._site if applies(rule)],
                [rule for rule in self._certificate if applies(rule)],
            )
        return found

    def _locations(self, result: ResultView, judged: Judged) -> Locations:
        """Return the locations of a result's job that count now, with that of the result."""
        job_id = result.job_id
        facts = (self._jobs or {}).get(job_id)
        silent_s = _SILENT_S if facts is None else silent_after_s(facts.interval, facts.slowest_s)
        known = judged.located.get(job_id) or self._located.get(job_id) or Locations({})
        where = result.location or ""
        found = known.heard(where, result.checked_at, silent_s, result.quorum)
        judged.located[job_id] = found
        if found.heard_at.keys() != known.heard_at.keys():
            judged.state(LOCATIONS, str(job_id), found.state())
        return found
