"""Reads a timeline: each lane from the part that keeps it, with limits, and what followed what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from monitor.errors import MonitorError
from monitor.files.threads import call_aside
from monitor.probes.job import Job
from monitor.store import Connection, Store
from monitor.web.context import Context
from monitor.web.timeline.bursts import count_errors
from monitor.web.timeline.events import Event, Lane, Timeline
from monitor.web.timeline.following import NEAR_S, tell
from monitor.web.timeline.grouping import grouped
from monitor.web.timeline.outages import Found, Outage, search, with_current
from monitor.web.timeline.sources import (
    by_incident,
    event_of_incident,
    event_of_outage,
    events_of_bursts,
    events_of_feed,
    events_of_maintenance,
    model_events,
)
from monitor.yielding import in_slices

if TYPE_CHECKING:
    from monitor.alerts.incidents import Incident
    from monitor.alerts.part import Alerts
    from monitor.alerts.silences import Silence
    from monitor.logs.part import Logs
    from monitor.logs.reader import LogReader
    from monitor.relay.part import Relay
    from monitor.web.jobs.registry import JobRegistry

__all__ = ["Range", "TimelineReader"]

_TIMEOUT_S = 5.0
_MOST_EVENTS = 500
# Pages that look at the same range share what is read.
_FRESH_S = 5.0
_KEPT = 50
_NOW_S = 60.0
# Checks of one interval notice an outage within so long of each other.
_TOGETHER_S = 120.0


class Range(NamedTuple):
    """What is asked for: the last ``span`` s until ``until`` (None: now), maybe of one subject."""

    span: float
    until: float | None = None
    job: int | None = None
    model: str | None = None
    sender: str | None = None


class TimelineReader:
    """The timelines of a daemon; belongs to the loop's thread."""

    def __init__(
        self,
        context: Context,
        *,
        book: JobRegistry | None,
        relay: Relay | None,
        logs: Logs | LogReader | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._context = context
        self._store = context.store
        self._book = book
        self._relay = relay
        self._logs = logs
        self._clock = clock
        self._lock = asyncio.Lock()
        self._kept: dict[Range, tuple[float, Timeline]] = {}

    @property
    def lanes(self) -> list[Lane]:
        """The lanes that there are here, those of parts that are on."""
        context, stored = self._context, self._store is not None
        found: list[Lane] = []
        if stored and (context.has("aggregation") or context.has("alerts")):
            found.append("incidents")
        if stored and context.has("cluster"):
            found.append("models")
        if stored and self._logs is not None:
            found.append("logs")
        if self._relay is not None:
            found.append("feed")
        if stored and context.has("alerts"):
            found.append("maintenance")
        return found

    async def read(self, wanted: Range) -> Timeline:
        """Return the events of a range, at most 5 s old."""
        async with self._lock:
            found = self._kept.pop(wanted, None)
            now = self._clock()
            if found is None or not now - _FRESH_S < found[0] <= now:
                found = now, await self._read(wanted, now)
            # The last one is the one that was asked for last.
            self._kept[wanted] = found
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
            return found[1]

    async def _read(self, wanted: Range, now: float) -> Timeline:
        until = now if wanted.until is None else wanted.until
        since = max(0.0, until - wanted.span)
        unread: list[Lane] = []
        cut: list[Lane] = []
        events: list[Event] = []
        for lane in self.lanes:
            try:
                some, more = await self._lane(lane, wanted, since, until, now)
            except MonitorError:
                unread.append(lane)
                continue
            if more or len(some) > _MOST_EVENTS:
                cut.append(lane)
            events += some[-_MOST_EVENTS:]
        return Timeline(
            since=since,
            until=until,
            # What happened just before the range may be what an incident in it followed.
            events=[
                event
                for event in tell(sorted(events, key=lambda each: (each.start, each.id)))
                if event.end is None or event.end >= since
            ],
            unread=unread,
            cut=cut,
        )

    async def _lane(
        self, lane: Lane, wanted: Range, since: float, until: float, now: float
    ) -> tuple[list[Event], bool]:
        """Return the events of a lane, oldest first, and whether there are more."""
        store = self._store
        if lane == "feed":
            assert self._relay is not None
            return events_of_feed(self._relay.feed.outages, since=since, until=until), False
        assert store is not None
        if lane == "incidents":
            return await self._incidents(store, wanted, since, until, now)
        if lane == "models":
            events = await store.read(
                partial(
                    model_events,
                    since=since - NEAR_S,
                    until=until,
                    key=wanted.model,
                    limit=_MOST_EVENTS + 1,
                ),
                timeout=_TIMEOUT_S,
            )
            return events, False
        if lane == "logs":
            return await self._errors(store, wanted, since, until, now)
        return await self._maintenance(store, since, until), False

    async def _incidents(
        self, store: Store, wanted: Range, since: float, until: float, now: float
    ) -> tuple[list[Event], bool]:
        job_id = wanted.job
        told: list[Incident] = []
        found = Found([], False)
        if self._context.has("alerts"):
            from monitor.alerts.reading import list_incidents

            numbered = await store.read(
                partial(
                    list_incidents,
                    job=job_id,
                    since=since,
                    until=until,
                    limit=_MOST_EVENTS + 1,
                    notices=False,
                ),
                timeout=_TIMEOUT_S,
            )
            told = [incident for _, incident in numbered]
        if self._context.has("aggregation"):
            found = await store.read(
                partial(search, since=since, until=until, job_id=job_id), timeout=_TIMEOUT_S
            )
        outages = found.outages
        if self._book is not None and until >= now - _NOW_S:
            down = await self._book.down_since()
            if job_id is not None:
                down = {job_id: down[job_id]} if job_id in down else {}
            outages = await call_aside(with_current, outages, down, until=until)
        jobs = {} if self._book is None else self._book.all()
        events = await call_aside(_events_of, outages, told, jobs)
        return events, found.cut or len(told) > _MOST_EVENTS

    async def _errors(
        self, store: Store, wanted: Range, since: float, until: float, now: float
    ) -> tuple[list[Event], bool]:
        assert self._logs is not None
        oldest = max(since, now - self._logs.service.settings.timewindow)
        if oldest >= until:
            return [], False
        counts = await store.read(
            partial(count_errors, since=oldest, until=until, sender=wanted.sender),
            timeout=_TIMEOUT_S,
        )
        return events_of_bursts(counts), counts.since > oldest

    async def _maintenance(self, store: Store, since: float, until: float) -> list[Event]:
        from monitor.alerts.maintenance import occurrences
        from monitor.alerts.silences import silences_between

        part = self._context.parts.get("alerts")
        windows = []
        if part is not None:
            alerts: Alerts = part  # type: ignore[assignment]
            windows = list(alerts.maintenance)

        def silences(connection: Connection) -> list[Silence]:
            return silences_between(connection, since, until)

        return events_of_maintenance(
            windows,
            await store.read(silences, timeout=_TIMEOUT_S),
            occurrences,
            since=since,
            until=until,
        )


def _events_of(
    outages: Sequence[Outage], told: Sequence[Incident], jobs: Mapping[int, Job]
) -> list[Event]:
    """Return the events of outages and of incidents, those together that came together."""

    def name(job_id: int | None) -> str | None:
        job = None if job_id is None else jobs.get(job_id)
        return None if job is None else job.name or job.shown_url

    of_rules, others = by_incident(outages, told)
    events = [event_of_incident(each, name(each.job), of_rules.get(each.id, ())) for each in told]
    events += [
        event_of_outage(each, name(each.job_id) or f"site {each.job_id}")
        for each in in_slices(others)
    ]
    return grouped(events, within_s=_TOGETHER_S)
