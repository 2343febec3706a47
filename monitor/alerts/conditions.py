"""Conditions that last: a part is degraded, no broker is connected, results are missing. Pure.

Each look gives the conditions that hold now. An incident is opened once a condition has held for
long enough, and resolved at the first look at which it does not hold.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from monitor.alerts.incidents import Changes, Opened, Resolved, State, new_id
from monitor.validation import one_line

__all__ = ["Condition", "judge_conditions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something that a rule watches and that is wrong now.

    ``for_s`` is how long it must last. ``since`` is when it began, if that is known; otherwise it
    is the first look that finds it.
    """

    rule: str
    watch: str
    subject: str
    title: str
    reason: str
    for_s: float = 0.0
    since: float | None = None
    job_id: int | None = None


def judge_conditions(
    found: Iterable[Condition],
    states: Mapping[tuple[str, str], State],
    *,
    rules: Container[str],
    now: float,
) -> Changes:
    """Return what a look changes; ``states`` are those of all conditions that it can find.

    ``rules`` has the names of the rules that there are.
    """
    changes = Changes()
    holds = {(each.rule, each.subject): each for each in found}
    for key, state in states.items():
        if key not in holds:
            if state.incident is not None:
                note = "" if key[0] in rules else "the rule was removed"
                changes.resolved.append(Resolved(state.incident, now, note))
            changes.states[key] = None
    for key, each in holds.items():
        before = states.get(key)
        since = each.since if each.since is not None else before.since if before else None
        # The clock may have been set back.
        since = now if since is None else min(since, now)
        incident = before.incident if before is not None else None
        if incident is None and now - since >= each.for_s:
            opened = Opened(
                id=new_id(),
                rule=each.rule,
                watch=each.watch,
                subject=each.subject,
                job_id=each.job_id,
                title=one_line(each.title),
                reason=one_line(each.reason),
                opened_at=now,
                caused_at=now,
            )
            changes.opened.append(opened)
            incident = opened.id
        if before is None or incident != before.incident:
            changes.states[key] = State(watch=each.watch, since=since, incident=incident)
    return changes
