"""Says what an incident followed closely: "down 2 min after churn 1.5 rolled out". Pure.

It says what happened before, not what was the cause. Of several changes before an incident, one
whose name is in the incident's title comes first, else the latest one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from monitor.web.timeline.events import Event, length_of

__all__ = ["NEAR_S", "tell"]

NEAR_S = 900.0
"""How long after a change an incident is said to follow it."""

# A rollout is complete when the daemon has seen it, which a check may be quicker to notice.
_EARLY_S = 30.0
_SHORTEST_NAME = 3
_AFFECTED = frozenset(("down", "site", "silence", "logs", "part", "errors"))
_WELL_AGAIN = frozenset(("down", "site", "silence", "part"))
_MENDING = frozenset(("upgraded", "rolledback"))


class _Change(NamedTuple):
    """A change that an incident may have followed: its event, and how far before it was."""

    event: Event
    seconds: float
    """Negative while it was going on."""


def tell(events: Sequence[Event]) -> list[Event]:
    """Return the events, those that followed a change with what is to say of it."""
    # Of a rough event it is not known when it was.
    changes = [event for event in events if event.lane in ("models", "feed") and not event.rough]
    return [_told(event, changes) for event in events]


def _told(event: Event, changes: Iterable[Event]) -> Event:
    if event.kind not in _AFFECTED or event.lane not in ("incidents", "logs"):
        return event
    before = _before(event.start, event, changes)
    words, after = "", None
    if before:
        change = before[0]
        after = change.event.id
        words = f"{_began(event)} {_when(change)} {_happened(change.event)}"
        others = sum(each.seconds >= 0 for each in before[1:])
        if others:
            words += f" (and {others} other {'change' if others == 1 else 'changes'}"
            words += f" in the {length_of(NEAR_S)} before)"
    if event.end is not None and event.end > event.start and event.kind in _WELL_AGAIN:
        mending = [change for change in changes if change.kind in _MENDING]
        ends = [
            each
            for each in _before(event.end, event, mending)
            # What had happened before the outage did not end it.
            if (each.event.end or each.event.start) > event.start
        ]
        if ends:
            again = f"well again {_when(ends[0])} {_happened(ends[0].event)}"
            words = f"{words}; {again}" if words else f"{_subject(event)}: {again}"
    if not words:
        return event
    return msgspec.structs.replace(event, said=words, after=after)


def _before(instant: float, event: Event, changes: Iterable[Event]) -> list[_Change]:
    """Return the changes shortly before an instant, the one to name first."""
    found = []
    for change in changes:
        if change.lane == "feed" and event.lane != "logs":
            continue  # what the relay has lost says nothing about sites
        moment = change.end if change.lane == "models" and change.end is not None else change.start
        passed = instant - moment
        going_on = change.start <= instant <= moment
        if going_on or -_EARLY_S <= passed <= NEAR_S:
            found.append(_Change(change, passed))
    title = f"{event.title} {event.detail} {' '.join(event.names)}".lower()

    def rank(change: _Change) -> tuple[bool, float]:
        name = (change.event.names or ("",))[0].lower()
        return not (len(name) >= _SHORTEST_NAME and name in title), abs(change.seconds)

    return sorted(found, key=rank)


def _subject(event: Event) -> str:
    if event.count == 1 and event.names and event.kind in ("down", "site"):
        return event.names[0]
    return event.title


def _began(event: Event) -> str:
    if event.kind in ("down", "site"):
        if event.count > 1:
            return f"{event.count} sites went down"
        return f"{_subject(event)} went down"
    return f"{event.title} began"


def _when(change: _Change) -> str:
    if change.seconds >= 1:
        return f"{length_of(change.seconds)} after"
    return "as"


def _happened(change: Event) -> str:
    """Return the change as a clause."""
    if change.lane == "feed":
        return "the relay lost a broker"
    return change.title
