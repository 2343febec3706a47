"""Judges results by the rules for sites and certificates: a state machine without I/O.

:meth:`ResultJudge.judge` changes nothing. The caller commits the changes that it returns, together
with the offsets of the messages, and then calls :meth:`ResultJudge.apply`. If the commit fails, the
same messages are judged again from the same states.

A job that others depend on has one more state, under the rule ``""``: whether its last result was
good (``failures`` is 0), since when, and when it was checked last (``bad_at``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from monitor.alerts.incidents import (
    Changes,
    LocationState,
    Opened,
    Resolved,
    State,
    new_id,
)
from monitor.alerts.jobs import JobFacts
from monitor.alerts.located import (
    LOCATIONS,
    Locations,
    counted,
    known_locations,
    with_location,
)
from monitor.alerts.matching import matches
from monitor.alerts.result_view import ResultView
from monitor.alerts.settings import CertificateRule, Rule, SiteRule
from monitor.locations import silent_after_s

__all__ = ["DEPENDENCY", "Judged", "Observed", "ResultJudge", "printable"]

DEPENDENCY = ""
"""The rule of the states of jobs that others depend on."""

_DAY_S = 86400.0
# How many results of a job are remembered, to recognize one that is delivered again.
_RECENT = 16
_MOST_TEXT = 500
# After which a location does not count for a job that is not known.
_SILENT_S = 3600.0

_Seen = int | tuple[int, str]
"""A job, or one of its locations."""


class Observed(msgspec.Struct, frozen=True, gc=False):
    """A result, when it was published (s since the epoch), and whether that was long ago."""

    result: ResultView
    published_at: float
    late: bool


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
        # Of jobs that are checked from several.
        self._located: dict[int, Locations] = {}

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
            self._located.update(judged.located)
        for (rule, subject), state in judged.states.items():
            job_id = int(subject)
            if rule == LOCATIONS:
                if state is None:
                    self._located.pop(job_id, None)
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
                self._note(states, result, located, judged)
            if (
                result.up
                and not result.degraded
                and not states
                and (not certificate or result.certificate_expires_at is None)
            ):
                continue
            if job_id not in pending:
                states = pending[job_id] = dict(states)
            for rule in site:
                if located is None:
                    self._judge_site(rule, each, states, judged)
                else:
                    self._judge_located(rule, each, located, states, judged)
            for cert_rule in certificate:
                self._judge_certificate(cert_rule, each, located, states, judged)
            applied = {rule.name for rule in (*site, *certificate)}
            for name in [name for name in states if name and name not in applied]:
                self._judge_orphan(name, each, states, judged)
        return judged

    def remember(self, results: Iterable[ResultView]) -> None:
        """Take note of results that were judged before, to recognize those that come again."""
        for result in results:
            job_id = result.job_id
            one: _Seen = (job_id, result.location) if result.location else job_id
            recent = self._seen.get(one, ())
            if result.scheduled_at not in recent:
                self._seen[one] = (*recent[1 - _RECENT :], result.scheduled_at)

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
        found = known.heard(result.location or "", result.checked_at, silent_s)
        judged.located[job_id] = found
        if found.heard_at.keys() != known.heard_at.keys():
            judged.state(LOCATIONS, str(job_id), found.state())
        return found

    def _note(
        self,
        states: dict[str, State],
        result: ResultView,
        located: Locations | None,
        judged: Judged,
    ) -> None:
        before = states.get(DEPENDENCY)
        down, locations = not result.up, {}
        if located is not None:
            after = LocationState(bad=True) if down else None
            locations = with_location(
                before or State(), result.location or "", after, located.heard_at
            )
            down = located.is_down(len(locations), result.quorum)
        failures = 1 if down else 0
        since = result.checked_at
        if before is not None and before.failures == failures:
            since = before.since or since
        state = State(
            watch="",
            failures=failures,
            since=since,
            bad_at=result.checked_at,
            locations=locations,
        )
        _set(states, judged, DEPENDENCY, result.job_id, state)

    def _judge_site(
        self, rule: SiteRule, each: Observed, states: dict[str, State], judged: Judged
    ) -> None:
        result = each.result
        state = states.get(rule.name)
        if result.up and not (rule.degraded and result.degraded):
            if state is not None:
                self._better(rule.name, rule.successes, each, states, judged)
            return
        state = State() if state is None else state
        failures = state.failures + 1
        since = result.checked_at if state.since is None else state.since
        incident = state.incident
        if incident is None and failures >= rule.failures:
            what = "down" if not result.up else "degraded"
            why = printable(result.error or what)
            in_a_row = f" ({failures} failed checks in a row)" if failures > 1 else ""
            incident = self._open(rule, each, f"is {what}", f"{why}{in_a_row}", judged)
        state = State(failures=failures, since=since, bad_at=result.checked_at, incident=incident)
        _set(states, judged, rule.name, result.job_id, state)

    def _judge_located(
        self,
        rule: SiteRule,
        each: Observed,
        located: Locations,
        states: dict[str, State],
        judged: Judged,
    ) -> None:
        """Judge a site that is checked from several locations, by a quorum of them."""
        result = each.result
        good = result.up and not (rule.degraded and result.degraded)
        state = states.get(rule.name)
        if state is None:
            if good:
                return
            state = State()
        where, incident = result.location or "", state.incident
        before = state.locations.get(where)
        if before is None and incident is not None and not state.locations:
            # It opened before its results had locations.
            before = LocationState(bad=True)
        after = counted(before, good=good, failures=rule.failures, successes=rule.successes)
        locations = with_location(state, where, after, located.heard_at)
        bad = sorted(name for name, known in locations.items() if known.bad)
        if not located.is_down(len(bad), result.quorum):
            if incident is not None:
                judged.resolved.append(Resolved(incident, result.checked_at))
                incident = None
        elif incident is None:
            what = "down" if not result.up else "degraded"
            shown = ", ".join(name or "no location" for name in bad)
            why = (
                f"{result.error or what} ({shown}: {len(bad)} of {len(located.heard_at)} locations)"
            )
            incident = self._open(rule, each, f"is {what}", printable(why), judged)
        if not locations and incident is None:
            _set(states, judged, rule.name, result.job_id, None)
            return
        state = State(
            since=result.checked_at if state.since is None else state.since,
            bad_at=state.bad_at if good else result.checked_at,
            incident=incident,
            locations=locations,
        )
        _set(states, judged, rule.name, result.job_id, state)

    def _better(
        self, name: str, successes: int, each: Observed, states: dict[str, State], judged: Judged
    ) -> None:
        """Take a good result of a site that was in trouble."""
        state = states[name]
        job_id = each.result.job_id
        if state.incident is None:
            _set(states, judged, name, job_id, None)
        elif state.successes + 1 < successes:
            better = State(
                successes=state.successes + 1,
                failures=state.failures,
                since=state.since,
                bad_at=state.bad_at,
                incident=state.incident,
            )
            _set(states, judged, name, job_id, better)
        else:
            judged.resolved.append(Resolved(state.incident, each.result.checked_at))
            _set(states, judged, name, job_id, None)

    def _judge_certificate(
        self,
        rule: CertificateRule,
        each: Observed,
        located: Locations | None,
        states: dict[str, State],
        judged: Judged,
    ) -> None:
        result = each.result
        expires_at = result.certificate_expires_at
        if expires_at is None:
            return
        state = states.get(rule.name)
        incident = None if state is None else state.incident
        left = (expires_at - result.checked_at) / _DAY_S
        locations = {}
        if located is not None:
            # One location that gets an old certificate is enough.
            after = LocationState(bad=True) if left < rule.days else None
            locations = with_location(
                state or State(), result.location or "", after, located.heard_at
            )
        if state is not None and incident is not None:
            if locations or left < rule.days:
                if locations == state.locations:
                    return
                state = msgspec.structs.replace(state, locations=locations)
                _set(states, judged, rule.name, result.job_id, state)
            else:
                judged.resolved.append(Resolved(incident, result.checked_at))
                _set(states, judged, rule.name, result.job_id, None)
            return
        if left >= rule.days:
            return
        what = "expired" if left <= 0 else f"expires in {_days(left)}"
        incident = self._open(
            rule, each, f"has a certificate that {what}", f"fewer than {rule.days:g} days", judged
        )
        state = State(
            watch="certificate", since=result.checked_at, incident=incident, locations=locations
        )
        _set(states, judged, rule.name, result.job_id, state)

    def _judge_orphan(
        self, name: str, each: Observed, states: dict[str, State], judged: Judged
    ) -> None:
        """Judge by a rule that is removed, or no longer applies: it ends what it opened."""
        state = states[name]
        if state.incident is None:
            _set(states, judged, name, each.result.job_id, None)
        elif state.watch == "certificate":
            if name not in self._names and each.result.certificate_expires_at is not None:
                judged.resolved.append(
                    Resolved(state.incident, each.result.checked_at, "the rule was removed")
                )
                _set(states, judged, name, each.result.job_id, None)
        elif each.result.up:
            self._better(name, 1, each, states, judged)

    def _open(self, rule: Rule, each: Observed, what: str, reason: str, judged: Judged) -> str:
        result = each.result
        facts = (self._jobs or {}).get(result.job_id)
        title = facts.title if facts is not None else result.url or f"job {result.job_id}"
        opened = Opened(
            id=new_id(),
            rule=rule.name,
            watch=rule.watch,
            subject=str(result.job_id),
            job_id=result.job_id,
            title=printable(f"{title} {what}"),
            reason=reason,
            opened_at=result.checked_at,
            caused_at=each.published_at,
            late=each.late,
        )
        judged.opened.append(opened)
        return opened.id


def printable(text: str) -> str:
    """Return at most 500 characters of ``text``, with ``?`` for unprintable ones."""
    return "".join(c if c.isprintable() else "?" for c in text[:_MOST_TEXT])


def _set(
    states: dict[str, State], judged: Judged, rule: str, job_id: int, state: State | None
) -> None:
    if state is None:
        states.pop(rule, None)
    else:
        states[rule] = state
    judged.state(rule, str(job_id), state)


def _days(left: float) -> str:
    if left < 1:
        return f"{max(1, int(left * 24))} h"
    return f"{int(left)} day{'' if int(left) == 1 else 's'}"
