"""What a timeline shows: events in lanes."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["LANES", "Event", "Lane", "Timeline", "length_of"]

Lane = Literal["incidents", "models", "logs", "feed", "maintenance"]
LANES: tuple[Lane, ...] = ("incidents", "models", "logs", "feed", "maintenance")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened from ``start`` to ``end`` (s since the epoch; null: it continues).

    ``kind`` says what: ``down`` for an outage found in the results, ``site``, ``rollout`` and so
    on for an incident of a rule; ``deployed``, ``upgraded``, ``rolledback``, ``removed`` or
    ``failed``; ``errors``; ``gap``; ``window`` or ``silence``. One for several subjects has their
    ``count``, and ``names`` of some. ``subject`` is the key of a model or a sender, ``incident``
    the id of an incident. ``after`` is the event that it followed closely, and ``said`` says so in
    words. With ``rough`` it is only roughly known when it was.
    """

    id: str
    lane: Lane
    kind: str
    start: float
    end: float | None
    title: str
    detail: str = ""
    cause: str = ""
    count: int = 1
    names: tuple[str, ...] = ()
    job: int | None = None
    subject: str | None = None
    incident: str | None = None
    acknowledged_by: str | None = None
    suppressed_by: str | None = None
    rough: bool = False
    after: str | None = None
    said: str = ""


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The events of a range, oldest first.

    ``unread`` has the lanes that cannot be read now, ``cut`` those of which only the newest events
    are here.
    """

    since: float
    until: float
    events: list[Event]
    unread: list[Lane]
    cut: list[Lane]


def length_of(seconds: float) -> str:
    """Return a length of time in the words of the page."""
    value = max(0, round(seconds))
    if value < 60:
        return f"{value} s"
    if value < 3600:
        return f"{value // 60} min"
    if value < 86400:
        minutes = value % 3600 // 60
        return f"{value // 3600} h" + (f" {minutes} min" if minutes else "")
    hours = value % 86400 // 3600
    return f"{value // 86400} d" + (f" {hours} h" if hours else "")
