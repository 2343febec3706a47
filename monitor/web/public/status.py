"""The public status: what the page, the feed and the badges say, and nothing else. Pure.

A site has its name and its number here; no URL, no error and no tag leaves this module.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from monitor.probes.job import Job
from monitor.web.jobs.entries import JobEntry

__all__ = [
    "Maintained",
    "Outage",
    "PublicDay",
    "PublicHistory",
    "PublicIncident",
    "PublicMaintenance",
    "PublicSite",
    "PublicState",
    "PublicStatus",
    "completed_outages",
    "joined_outages",
    "plain_text",
    "public_name",
    "public_state",
    "verdict",
]

PublicState = Literal["up", "degraded", "down", "maintenance", "unknown", "paused"]

# A site is not known once no result has come for this many intervals and a minute.
_LATE_INTERVALS = 3
_LATE_S = 60.0
_LONGEST_NAME = 200
# Controls, formats such as right-to-left overrides, private and half letters.
_HIDDEN = frozenset(("Cc", "Cf", "Co", "Cs"))
_NO_XML = "\ufffe\uffff"


class PublicDay(msgspec.Struct, frozen=True, kw_only=True):
    """A day (UTC): how long (s) the site was checked, and was down in that time."""

    known_s: float
    down_s: float


class PublicHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The past of a site: its last days, oldest first, and the share of time that it was up."""

    days: list[PublicDay]
    uptime: dict[str, float | None]


class PublicSite(msgspec.Struct, frozen=True, kw_only=True):
    """One site; ``since`` (epoch s) is when it went up or down, null if that is not known."""

    id: int
    name: str
    state: PublicState
    since: float | None
    history: PublicHistory | None


class PublicIncident(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which a site was down; instants in epoch s, ``ended_at`` null while it lasts."""

    id: str
    site: int
    name: str
    started_at: float
    ended_at: float | None


class PublicMaintenance(msgspec.Struct, frozen=True, kw_only=True):
    """Maintenance that is under way or comes; instants in epoch s."""

    names: list[str]
    all_sites: bool
    begins_at: float
    ends_at: float
    under_way: bool


class PublicStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is public, as it was at ``at`` (epoch s)."""

    title: str
    at: float
    state: PublicState
    verdict: str
    sites: list[PublicSite]
    maintenance: list[PublicMaintenance]
    incidents: list[PublicIncident]
    history_from: float | None
    """When the days, uptimes and incidents were read; null if that never succeeded."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which a job was down, as it is stored."""

    id: str
    job_id: int
    started_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Maintained:
    """A time of maintenance, and the ids of the sites that it is for."""

    sites: frozenset[int]
    begins_at: float
    ends_at: float


def plain_text(text: str) -> str:
    """Return a text as one line, without what would turn around or hide the text around it."""
    shown = "".join(
        " " if each.isspace() else each
        for each in text[:_LONGEST_NAME]
        if each.isspace() or (unicodedata.category(each) not in _HIDDEN and each not in _NO_XML)
    )
    return " ".join(shown.split())


def public_name(job: Job) -> str:
    """Return what to call a job in public: its name, or its number, but never its URL."""
    return plain_text(job.name) or f"Site {job.id}"


def public_state(entry: JobEntry, job: Job, *, now: float, maintained: bool) -> PublicState:
    """Return the state of a site; what was not checked for a while is not known."""
    state = entry.state.partition(":")[0]
    if state == "stopped":
        return "maintenance" if maintained else "paused"
    last = entry.last
    allowed = _LATE_INTERVALS * job.interval + job.timeout * (job.retries + 1) + _LATE_S
    if last is None or state == "unknown" or now - last.scheduled_at > allowed:
        return "maintenance" if maintained else "unknown"
    if state == "down":
        return "maintenance" if maintained else "down"
    return "degraded" if last.degraded else "up"


def verdict(states: Sequence[PublicState]) -> tuple[PublicState, str]:
    """Return the state of all sites together, and a sentence; good only if all are known."""
    total = len(states)
    if not total:
        return "unknown", "No sites are shown here yet"
    down = states.count("down")
    if down:
        return "down", _of("down", down, total)
    if "maintenance" in states:
        return "maintenance", "Maintenance is under way"
    degraded = states.count("degraded")
    if degraded:
        return "degraded", _of("degraded", degraded, total)
    unknown = states.count("unknown")
    if unknown:
        return "unknown", _of("not known at the moment", unknown, total)
    paused = states.count("paused")
    if paused == total:
        return "paused", "Checks are paused"
    if paused:
        return "up", f"All sites are up, {paused} not checked"
    return "up", "All sites are up" if total > 1 else "The site is up"


def _of(what: str, count: int, total: int) -> str:
    if count == total:
        return f"All {total} sites are {what}" if total > 1 else f"The site is {what}"
    return f"{count} of {total} sites {'is' if count == 1 else 'are'} {what}"


def joined_outages(outages: Iterable[Outage]) -> list[Outage]:
    """Return outages, newest first; those of one job that overlap are one.

    Several rules may have seen the same one.
    """
    found: list[Outage] = []
    last: dict[int, int] = {}
    for each in sorted(outages, key=lambda each: each.started_at):
        place = last.get(each.job_id)
        before = None if place is None else found[place]
        if before is not None and (before.ended_at is None or each.started_at <= before.ended_at):
            assert place is not None
            ended = None
            if before.ended_at is not None and each.ended_at is not None:
                ended = max(before.ended_at, each.ended_at)
            found[place] = Outage(before.id, before.job_id, before.started_at, ended)
            continue
        last[each.job_id] = len(found)
        found.append(each)
    found.reverse()
    return found


def completed_outages(
    outages: Iterable[Outage], states: Mapping[int, tuple[PublicState, float | None]]
) -> list[Outage]:
    """Return the outages, corrected by the present states.

    An open outage has ended if its site is up again, and a site that is down has one.
    ``states`` holds each state and since when.
    """
    found, going_on = [], set()
    for each in outages:
        state, since = states.get(each.job_id, ("unknown", None))
        if each.ended_at is None and state in ("up", "degraded"):
            if since is None or since < each.started_at:
                continue
            found.append(replace(each, ended_at=since))
            continue
        if each.ended_at is None:
            going_on.add(each.job_id)
        found.append(each)
    found += [
        Outage(f"{job_id}-{since:.3f}", job_id, since, None)
        for job_id, (state, since) in states.items()
        if state == "down" and since is not None and job_id not in going_on
    ]
    return joined_outages(found)
