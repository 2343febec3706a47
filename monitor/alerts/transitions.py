"""How one result changes the states of its job: by rules for sites and certificates. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from monitor.alerts.incidents import (
    NOWHERE,
    Changes,
    LocationState,
    Opened,
    Resolved,
    State,
    new_id,
)
from monitor.alerts.jobs import JobFacts
from monitor.alerts.located import Locations, counted, with_location
from monitor.alerts.result_view import ResultView
from monitor.alerts.settings import CertificateRule, Rule, SiteRule
from monitor.validation import one_line

__all__ = ["DEPENDENCY", "Observed", "Transition"]

DEPENDENCY = ""
"""The rule of the states of jobs that others depend on.

Such a state says whether the last result was good (``failures`` is 0), since when, and when the job
was checked last (``bad_at``).
"""

_DAY_S = 86400.0


class Observed(msgspec.Struct, frozen=True, gc=False):
    """A result, when it was published (s since the epoch), and whether that was long ago."""

    result: ResultView
    published_at: float
    late: bool


@dataclass(frozen=True, slots=True)
class Transition:
    """One result, and the states of its job by rule.

    The methods update ``states``, and add to ``changes`` what they changed.
    """

    observed: Observed
    states: dict[str, State]
    changes: Changes
    facts: JobFacts | None

    def note_dependency(self, located: Locations | None) -> None:
        """Note whether a job that others depend on is well."""
        result, before = self.observed.result, self.states.get(DEPENDENCY)
        down, locations = not result.up, NOWHERE
        if located is not None:
            after = LocationState(bad=True) if down else None
            locations = with_location(
                before or State(), result.location or "", after, located.heard_at
            )
            verdict = located.is_down(len(locations), result.quorum)
            was_down = before is not None and before.failures > 0
            down = was_down if verdict is None else verdict
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
        self._set(DEPENDENCY, state)

    def judge_site(self, rule: SiteRule) -> None:
        """Judge a site that is checked from one place."""
        result, state = self.observed.result, self.states.get(rule.name)
        if result.up and not (rule.degraded and result.degraded):
            if state is not None:
                self._better(rule.name, rule.successes)
            return
        state = State() if state is None else state
        failures = state.failures + 1
        since = result.checked_at if state.since is None else state.since
        incident = state.incident
        if incident is None and failures >= rule.failures:
            what = "down" if not result.up else "degraded"
            why = one_line(result.error or what)
            in_a_row = f" ({failures} failed checks in a row)" if failures > 1 else ""
            incident = self._open(rule, f"is {what}", f"{why}{in_a_row}")
        state = State(failures=failures, since=since, bad_at=result.checked_at, incident=incident)
        self._set(rule.name, state)

    def judge_located(self, rule: SiteRule, located: Locations) -> None:
        """Judge a site that is checked from several locations, by a quorum of them."""
        result, state = self.observed.result, self.states.get(rule.name)
        good = result.up and not (rule.degraded and result.degraded)
        if state is None:
            if good:
                return
            state = State()
        where, incident = result.location or "", state.incident
        before = state.locations.get(where)
        if before is None and incident is not None and (located.joined or not state.locations):
            # One that did not count does not end an outage that it sees, too. Without any, the
            # incident opened before results had locations.
            before = LocationState(bad=True)
        after = counted(before, good=good, failures=rule.failures, successes=rule.successes)
        locations = with_location(state, where, after, located.heard_at)
        bad = sorted(name for name, known in locations.items() if known.bad)
        verdict = located.is_down(len(bad), result.quorum)
        if verdict is False and incident is not None:
            self.changes.resolved.append(Resolved(incident, result.checked_at))
            incident = None
        elif verdict and incident is None:
            what = "down" if not result.up else "degraded"
            shown = ", ".join(name or "no location" for name in bad)
            why = (
                f"{result.error or what} ({shown}: {len(bad)} of {len(located.heard_at)} locations)"
            )
            incident = self._open(rule, f"is {what}", one_line(why))
        if not locations and incident is None:
            self._set(rule.name, None)
            return
        state = State(
            since=result.checked_at if state.since is None else state.since,
            bad_at=state.bad_at if good else result.checked_at,
            incident=incident,
            locations=locations,
        )
        self._set(rule.name, state)

    def _better(self, name: str, successes: int) -> None:
        """Take a good result of a site that was in trouble."""
        state = self.states[name]
        if state.incident is None:
            self._set(name, None)
        elif state.successes + 1 < successes:
            better = State(
                successes=state.successes + 1,
                failures=state.failures,
                since=state.since,
                bad_at=state.bad_at,
                incident=state.incident,
            )
            self._set(name, better)
        else:
            self._resolve(name, state.incident)

    def judge_certificate(self, rule: CertificateRule, located: Locations | None) -> None:
        """Judge how long the certificate of a result is valid, if it has one."""
        result, state = self.observed.result, self.states.get(rule.name)
        expires_at = result.certificate_expires_at
        if expires_at is None:
            return
        incident = None if state is None else state.incident
        left = (expires_at - result.checked_at) / _DAY_S
        locations = NOWHERE
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
                self._set(rule.name, state)
            else:
                self._resolve(rule.name, incident)
            return
        if left >= rule.days:
            return
        what = "expired" if left <= 0 else f"expires in {_days(left)}"
        incident = self._open(
            rule, f"has a certificate that {what}", f"fewer than {rule.days:g} days"
        )
        state = State(
            watch="certificate", since=result.checked_at, incident=incident, locations=locations
        )
        self._set(rule.name, state)

    def judge_orphan(self, name: str, *, removed: bool) -> None:
        """Judge by a rule that is removed, or no longer applies: it ends what it opened."""
        result, state = self.observed.result, self.states[name]
        if state.incident is None:
            self._set(name, None)
        elif state.watch == "certificate":
            if removed and result.certificate_expires_at is not None:
                self._resolve(name, state.incident, "the rule was removed")
        elif result.up:
            self._better(name, 1)

    def _open(self, rule: Rule, what: str, reason: str) -> str:
        result, facts = self.observed.result, self.facts
        title = facts.title if facts is not None else result.url or f"job {result.job_id}"
        opened = Opened(
            id=new_id(),
            rule=rule.name,
            watch=rule.watch,
            subject=str(result.job_id),
            job_id=result.job_id,
            title=one_line(f"{title} {what}"),
            reason=reason,
            opened_at=result.checked_at,
            caused_at=self.observed.published_at,
            late=self.observed.late,
        )
        self.changes.opened.append(opened)
        return opened.id

    def _resolve(self, name: str, incident: str, note: str = "") -> None:
        self.changes.resolved.append(Resolved(incident, self.observed.result.checked_at, note))
        self._set(name, None)

    def _set(self, name: str, state: State | None) -> None:
        if state is None:
            self.states.pop(name, None)
        else:
            self.states[name] = state
        self.changes.state(name, str(self.observed.result.job_id), state)


def _days(left: float) -> str:
    if left < 1:
        return f"{max(1, int(left * 24))} h"
    return f"{int(left)} day{'' if int(left) == 1 else 's'}"
