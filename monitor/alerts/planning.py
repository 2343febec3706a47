"""Decides what is sent of which incident, to whom and when. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from monitor.alerts.incidents import Event
from monitor.alerts.settings import AlertsSettings, Rule
from monitor.alerts.suppression import LONGEST_LOOK_S, Subject, Surroundings

__all__ = [
    "AWAITED",
    "STORM",
    "Brake",
    "Looks",
    "Mark",
    "Plan",
    "Planner",
    "Waiting",
    "furthest_looks",
]

AWAITED = "awaited"
"""How what suppresses an incident ends if it is only held until more is known."""

STORM = 10
"""From this many incidents on, a message is one of a storm, and the next waits longer."""

_STORM_WAITS = 6.0
_CATCHING_UP_LOOK_S = 1.0


class Waiting(NamedTuple):
    """An incident that the notifier has to look at; times in s since the epoch."""

    id: str
    rule: str
    watch: str
    subject: str
    job_id: int | None
    opened_at: float
    noted_at: float
    late: bool
    acknowledged_at: float | None
    resolved_at: float | None
    suppressed_by: str | None
    announced_at: float | None
    told_at: float | None
    since: float
    bad_at: float

    def as_subject(self) -> Subject:
        """Return what decides on suppression."""
        return Subject(
            rule=self.rule,
            watch=self.watch,
            subject=self.subject,
            job_id=self.job_id,
            opened_at=self.opened_at,
            noted_at=self.noted_at,
            since=self.since,
            bad_at=self.bad_at,
            announced=self.announced_at is not None,
        )


class Mark(NamedTuple):
    """What is noted of an incident; ``look_at`` None: nothing to do until it changes."""

    id: str
    suppressed_by: str | None
    announced_at: float | None
    told_at: float | None
    look_at: float | None


@dataclass(slots=True)
class Plan:
    """What to note, and the messages: receiver and event, with their incidents in order."""

    marks: list[Mark] = field(default_factory=list)
    messages: dict[tuple[str, Event], list[str]] = field(default_factory=dict)

    def send(self, receivers: Iterable[str], event: Event, incident_id: str) -> None:
        """Add an incident to the messages for some receivers."""
        for receiver in receivers:
            self.messages.setdefault((receiver, event), []).append(incident_id)

    @property
    def events(self) -> set[Event]:
        """The events of its messages."""
        return {event for _, event in self.messages}


class Looks(NamedTuple):
    """How far ahead (s) a look is noted: any but that for a repeated message, and that."""

    waits: float
    repeats: float


def furthest_looks(settings: AlertsSettings) -> Looks:
    """Return what bounds the looks that are noted with these settings."""
    waits = max(LONGEST_LOOK_S, settings.group_wait * _STORM_WAITS) + 1.0
    return Looks(waits, max([waits, *(rule.repeat or 0.0 for rule in settings.rules)]) + 1.0)


class Brake:
    """Spaces the messages of a storm: what opens within a minute is a few messages at most."""

    def __init__(self) -> None:
        # By event, when such a message was sent, and how long (s) the next waits.
        self._sent: dict[Event, tuple[float, float]] = {}

    def sent(self, made: Plan, *, now: float, group_wait: float) -> None:
        """Take note of a plan that was carried out."""
        for (_, event), incidents in made.messages.items():
            if len(incidents) >= STORM:
                self._sent[event] = now, group_wait * _STORM_WAITS

    def until(self, event: Event, now: float) -> float | None:
        """Return when the next message of an event may go, if not now."""
        sent_at, wait = self._sent.get(event, (0.0, 0.0))
        # A clock that was set back ends it.
        return sent_at + wait if sent_at <= now < sent_at + wait else None


@dataclass(slots=True, kw_only=True)
class Planner:
    """What decides: the surroundings, the rules by name, and what was sent.

    ``told`` has the receivers that were sent the opening of an incident. While the instance is
    ``catching_up``, it does not know yet whether late incidents are over. ``started_at`` is when
    the notifier started: what was opened before and is over now was not sent by then.
    """

    surroundings: Surroundings
    rules: Mapping[str, Rule]
    brake: Brake
    catching_up: bool
    started_at: float
    told: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def plan(self, waiting: Iterable[Waiting], made: Plan) -> None:
        """Add to a plan what to do about incidents whose time has come."""
        for each in waiting:
            rule = self.rules.get(each.rule)
            if each.resolved_at is None:
                self._open(each, rule, made)
            else:
                self._end(each, rule, made)

    def _open(self, each: Waiting, rule: Rule | None, made: Plan) -> None:
        now = self.surroundings.now
        found = self.surroundings.suppression(each.as_subject())
        if found is not None:
            mark = Mark(each.id, found.by, each.announced_at, each.told_at, found.look_at)
            made.marks.append(mark)
            return
        receivers = () if rule is None else rule.receivers
        repeat = None if rule is None or each.acknowledged_at is not None else rule.repeat
        if each.announced_at is None:
            held_until = self.brake.until("opened", now)
            if each.late and self.catching_up:
                held_until = now + _CATCHING_UP_LOOK_S
            if held_until is not None:
                made.marks.append(Mark(each.id, None, None, None, held_until))
                return
            made.send(receivers, "opened", each.id)
            look_at = None if repeat is None else now + repeat
            made.marks.append(Mark(each.id, None, now, now, look_at))
            return
        told_at = each.announced_at if each.told_at is None else each.told_at
        if repeat is not None and now >= told_at + repeat:
            made.send(receivers, "repeated", each.id)
            told_at = now
        # A clock that was set back must not delay it by more than one interval.
        look_at = None if repeat is None else min(told_at, now) + repeat
        made.marks.append(Mark(each.id, None, each.announced_at, told_at, look_at))

    def _end(self, each: Waiting, rule: Rule | None, made: Plan) -> None:
        now = self.surroundings.now
        held_until = self.brake.until("resolved", now)
        announced_at = each.announced_at
        if held_until is not None:
            mark = Mark(each.id, each.suppressed_by, announced_at, each.told_at, held_until)
            made.marks.append(mark)
            return
        receivers = () if rule is None else rule.receivers
        wants_end = rule is None or rule.resolved
        if announced_at is not None:
            if wants_end:
                made.send(self.told.get(each.id, ()), "resolved", each.id)
        elif each.suppressed_by is not None and not each.suppressed_by.endswith(AWAITED):
            pass  # nobody knows of it
        elif each.late or each.noted_at < self.started_at:
            # It is over before it could be sent. One message says what happened.
            made.send(receivers, "resolved", each.id)
            announced_at = now
        else:
            made.send(receivers, "opened", each.id)
            if wants_end:
                made.send(receivers, "resolved", each.id)
            announced_at = now
        made.marks.append(Mark(each.id, each.suppressed_by, announced_at, each.told_at, None))
