"""Incidents, and what changes them. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import msgspec

__all__ = [
    "NOWHERE",
    "Changes",
    "Event",
    "Incident",
    "LocationState",
    "Notice",
    "Opened",
    "Resolved",
    "State",
    "new_id",
]

Event = Literal["opened", "repeated", "resolved", "test"]


class Notice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one receiver got of an incident; ``at`` is when it accepted, None until then."""

    receiver: str
    event: str
    at: float | None
    attempts: int
    error: str | None


class Incident(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An incident as the API and messages show it; times in s since the epoch.

    ``subject`` is the id of a job, or the name of a service, a relay, a sender or a part.
    """

    id: str
    rule: str
    watch: str
    subject: str
    job: int | None = None
    title: str
    opened_at: float
    acknowledged_at: float | None = None
    acknowledged_by: str | None = None
    resolved_at: float | None = None
    reason: str
    suppressed_by: str | None = None
    notified: Sequence[Notice] = ()


class LocationState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a rule knows of a subject in one location; ``bad`` once it is in trouble there."""

    failures: int = 0
    successes: int = 0
    bad: bool = False


NOWHERE: Mapping[str, LocationState] = MappingProxyType({})
"""No locations; one object, since an outage has thousands of states."""


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a rule knows of a subject that is not simply well.

    ``since`` is when the trouble began, ``bad_at`` when it was last seen. ``locations`` has those
    in which something is wrong, if the subject is checked from several.
    """

    watch: str = "site"
    failures: int = 0
    successes: int = 0
    since: float | None = None
    bad_at: float | None = None
    incident: str | None = None
    locations: Mapping[str, LocationState] = NOWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A new incident.

    ``caused_at`` is when the message that opened it was published. It is ``late`` if that was long
    ago: such an incident is sent only if it is still open once everything has been read.
    """

    id: str
    rule: str
    watch: str
    subject: str
    job_id: int | None
    title: str
    reason: str
    opened_at: float
    caused_at: float
    late: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """The end of an incident, with a note if it ends for an unusual reason."""

    id: str
    at: float
    note: str = ""


@dataclass(slots=True)
class Changes:
    """What judging some observations changes; None for a state that is forgotten."""

    states: dict[tuple[str, str], State | None] = field(default_factory=dict)
    opened: list[Opened] = field(default_factory=list)
    resolved: list[Resolved] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.states or self.opened or self.resolved)

    def state(self, rule: str, subject: str, state: State | None) -> None:
        """Set the state of a subject."""
        self.states[rule, subject] = state


def new_id() -> str:
    """Return the id of a new incident or delivery."""
    return secrets.token_hex(12)
