"""Judges model events by the rules for rollouts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from monitor.alerts.incidents import Changes, Opened, Resolved, State, new_id
from monitor.alerts.matching import matches
from monitor.alerts.settings import RolloutRule
from monitor.messages import ModelEvent, decode_model_event
from monitor.validation import one_line

__all__ = ["RolloutEvent", "judge_rollouts", "read_event"]

_FAILED = "org.recodex.monitor.rollout.failed"
_SETTLED = "dev.cdevents.service."


@dataclass(frozen=True, slots=True)
class RolloutEvent:
    """A model event with the time of its change, and when it was published; s since the epoch."""

    type: str
    event: ModelEvent
    at: float
    published_at: float
    late: bool

    @property
    def service(self) -> str:
        """The service, as the subject of an incident."""
        return one_line(f"{self.event.namespace}/{self.event.name}")


def read_event(value: bytes, kind: str) -> ModelEvent | None:
    """Return the event in a message of this CloudEvents type, or None for another message."""
    if kind != _FAILED and not kind.startswith(_SETTLED):
        return None
    try:
        return decode_model_event(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def judge_rollouts(
    events: Iterable[RolloutEvent],
    rules: Iterable[RolloutRule],
    states: dict[tuple[str, str], State],
) -> Changes:
    """Return what these events change; a later event of a service ends its incidents."""
    changes = Changes()
    rules = list(rules)

    def state_of(rule: str, subject: str) -> State | None:
        key = rule, subject
        return changes.states[key] if key in changes.states else states.get(key)

    for each in events:
        subject = each.service
        if each.type != _FAILED:
            known = {rule for rule, other in (*states, *changes.states) if other == subject}
            for name in known:
                state = state_of(name, subject)
                if state is not None and state.incident is not None:
                    changes.resolved.append(Resolved(state.incident, each.at))
                    changes.state(name, subject, None)
            continue
        for rule in rules:
            if state_of(rule.name, subject) is not None:
                continue
            if not matches(rule.match, subject=subject, watch="rollout", rule=rule.name):
                continue
            event = each.event
            why = ": ".join(text for text in (event.reason, event.message) if text)
            opened = Opened(
                id=new_id(),
                rule=rule.name,
                watch="rollout",
                subject=subject,
                job_id=None,
                title=f"{subject}: the rollout failed",
                reason=one_line(why or event.cause),
                opened_at=each.at,
                caused_at=each.published_at,
                late=each.late,
            )
            changes.opened.append(opened)
            state = State(watch="rollout", since=each.at, bad_at=each.at, incident=opened.id)
            changes.state(rule.name, subject, state)
    return changes
