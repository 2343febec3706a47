"""Puts incidents together that began together for one cause: one outage, 1000 sites. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from monitor.web.timeline.events import Event

__all__ = ["grouped"]

_FEWEST = 3
_NAMES = 5


def grouped(events: Iterable[Event], *, within_s: float) -> list[Event]:
    """Return the events, those of one kind and cause that began within some s of each other as one.

    A group lasts until its last event has ended, and has each subject once. Fewer than three stay
    as they are.
    """
    alike: dict[tuple[str, str, str], list[Event]] = {}
    for event in sorted(events, key=lambda each: each.start):
        alike.setdefault((event.lane, event.kind, event.cause), []).append(event)
    found: list[Event] = []
    for some in alike.values():
        group: list[Event] = []
        known: set[tuple[int | None, str | None]] = set()
        for event in some:
            again = _who(event) in known
            if group and (again or event.start - group[-1].start > within_s):
                found += _as_one(group)
                group, known = [], set()
            group.append(event)
            known.add(_who(event))
        found += _as_one(group)
    return sorted(found, key=lambda each: (each.start, each.id))


def _who(event: Event) -> tuple[int | None, str | None]:
    return event.job, event.subject


def _as_one(group: Sequence[Event]) -> list[Event]:
    if len(group) < _FEWEST:
        return list(group)
    first = group[0]
    ends = [event.end for event in group]
    still = sum(end is None for end in ends)
    what = "sites down" if first.kind in ("down", "site") else f"incidents of {first.kind}"
    detail = first.cause
    if 0 < still < len(group):
        detail += f"{'; ' if detail else ''}{still} of them still"
    return [
        msgspec.structs.replace(
            first,
            id=f"{first.id}+{len(group) - 1}",
            end=None if still else max(end for end in ends if end is not None),
            title=f"{len(group)} {what}",
            detail=detail,
            count=len(group),
            names=tuple(event.names[0] if event.names else event.title for event in group[:_NAMES]),
            job=None,
            subject=None,
            incident=None,
            acknowledged_by=_common(event.acknowledged_by for event in group),
            suppressed_by=_common(event.suppressed_by for event in group),
            rough=any(event.rough for event in group),
        )
    ]


def _common(values: Iterable[str | None]) -> str | None:
    """Return the value of all, None if they differ."""
    found = set(values)
    return found.pop() if len(found) == 1 else None
