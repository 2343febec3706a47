"""Reckons the public status: once for everybody, however many ask.

The present is at most some seconds old, the days and uptimes some minutes. While one request
reckons, others get what there was before, so that a crowd costs no more than one visitor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from monitor.backoff import Backoff
from monitor.errors import MonitorError
from monitor.files.threads import call_aside
from monitor.log_limits import OutageLog
from monitor.probes.job import Job
from monitor.store import RETRY_S
from monitor.web.jobs.entries import JobEntry
from monitor.web.jobs.registry import JobRegistry
from monitor.web.public.past import Past
from monitor.web.public.status import (
    Maintained,
    Outage,
    PublicHistory,
    PublicIncident,
    PublicMaintenance,
    PublicSite,
    PublicStatus,
    completed_outages,
    plain_text,
    public_name,
    public_state,
    verdict,
)
from monitor.web.settings import StatusPage
from monitor.yielding import in_slices, over_turns

__all__ = ["PublicBook", "Rendered"]

logger = logging.getLogger("monitor.web")

_FRESH_S = 5.0
_HISTORY_FRESH_S = 300.0
# How long the first visitor waits for the days and uptimes.
_PATIENCE_S = 10.0
_MOST_MAINTENANCE = 20


class Rendered:
    """A status, and what was made of it so far."""

    def __init__(self, status: PublicStatus, page: StatusPage, made_at: float) -> None:
        self.status = status
        self.page = page
        self.made_at = made_at
        self.sites = {each.id: each for each in status.sites}
        self._made: dict[str, bytes] = {}
        self._lock = asyncio.Lock()

    async def made(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return what ``make`` makes, under its name; it runs once, in a thread."""
        async with self._lock:
            if name not in self._made:
                self._made[name] = await call_aside(make)
            return self._made[name]


class PublicBook:
    """The public status of a registry's jobs.

    ``page`` returns the settings in force, None if nothing is public. Without a ``past`` there are
    no days, uptimes and incidents. Belongs to the loop's thread.
    """

    def __init__(
        self,
        book: JobRegistry,
        *,
        page: Callable[[], StatusPage | None],
        past: Past | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._book = book
        self._page = page
        self._past = past
        self._clock = clock
        self._rendered: Rendered | None = None
        self._reckoning = asyncio.Lock()
        self._outage = OutageLog(logger, subject="status page", outcome="showing what is known")
        self._outages: list[Outage] = []
        self._maintained: list[Maintained] = []
        # The days and uptimes: of which sites, and when they were read.
        self._histories: Mapping[int, PublicHistory] = {}
        self._of: StatusPage | None = None
        self._history_from: float | None = None
        self._asked = asyncio.Event()
        self._tried = asyncio.Event()
        # A reload chose other sites.
        self._others = asyncio.Event()

    async def run(self) -> None:
        """Read days and uptimes while somebody asks for them, until cancelled."""
        past = self._past
        if past is None:
            self._tried.set()
            return
        outage = OutageLog(logger, subject="status page", outcome="showing an older history")
        backoff = Backoff(*RETRY_S)
        while True:
            await self._asked.wait()
            self._asked.clear()
            page = self._page()
            pause_s = _HISTORY_FRESH_S
            if page is not None:
                try:
                    now = self._clock()
                    ids = [job.id for job in await self._public(page)]
                    found = await past.histories(ids, now)
                    if await past.incidents([], now) is None:
                        self._outages = await past.outages(ids, now)
                    self._histories, self._history_from, self._of = found, now, page
                    outage.recovered("history read again")
                    backoff.reset()
                except MonitorError as error:
                    outage.failed(f"cannot read the history: {error}", cause=error)
                    pause_s = backoff.next_delay()
                self._rendered = None
            self._tried.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._others.wait()
            self._others.clear()

    async def current(self) -> Rendered | None:
        """Return the status, at most some seconds old; None if nothing is public.

        Raises MonitorError if nothing is known of the sites yet.
        """
        page = self._page()
        if page is None:
            return None
        found = self._rendered
        if found is not None and found.page == page:
            fresh = time.monotonic() - found.made_at < _FRESH_S
            if fresh or self._reckoning.locked():
                return found
        async with self._reckoning:
            found = self._rendered
            if found is None or found.page != page or time.monotonic() - found.made_at >= _FRESH_S:
                found = self._rendered = await self._reckon(page)
        return found

    async def _reckon(self, page: StatusPage) -> Rendered:
        try:
            await self._book.refresh()
        except MonitorError:
            if not self._book.ids():
                raise
        await self._history(page)
        now = self._clock()
        jobs = await self._public(page)
        await self._read_present(jobs, now)
        entries = []
        async for job in over_turns(jobs):
            with contextlib.suppress(KeyError):  # deleted meanwhile
                entries.append((job, self._book.entry(job.id)))
        return await call_aside(self._render, page, entries, now)

    async def _history(self, page: StatusPage) -> None:
        """Ask for the days and uptimes, and wait for the first ones for a limited time."""
        if self._of is not None and self._of.match != page.match:
            self._of, self._histories, self._history_from = None, {}, None
            self._tried.clear()
            self._others.set()
        self._asked.set()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._tried.wait()
        except TimeoutError:
            # They are shown as soon as they are there.
            return

    async def _read_present(self, jobs: Sequence[Job], now: float) -> None:
        if self._past is None:
            return
        try:
            self._maintained = await self._past.maintained(jobs, now)
            incidents = await self._past.incidents([job.id for job in jobs], now)
            if incidents is not None:
                self._outages = incidents
            self._outage.recovered("incidents and maintenance read again")
        except MonitorError as error:
            self._outage.failed(f"cannot read incidents and maintenance: {error}", cause=error)

    async def _public(self, page: StatusPage) -> list[Job]:
        wanted = set(page.match.tags)
        jobs = self._book.all()
        return [
            job
            async for job in over_turns(map(jobs.__getitem__, self._book.ids()))
            if job.active and not wanted.isdisjoint(job.tags)
        ]

    def _render(
        self, page: StatusPage, entries: Sequence[tuple[Job, JobEntry]], now: float
    ) -> Rendered:
        return Rendered(self._status(page, entries, now), page, time.monotonic())

    def _status(
        self, page: StatusPage, entries: Sequence[tuple[Job, JobEntry]], now: float
    ) -> PublicStatus:
        under_way = [each for each in self._maintained if each.begins_at <= now < each.ends_at]
        maintained = {job_id for each in under_way for job_id in each.sites}
        sites = []
        for job, entry in in_slices(entries):
            sites.append(
                PublicSite(
                    id=job.id,
                    name=public_name(job),
                    state=public_state(entry, job, now=now, maintained=job.id in maintained),
                    since=entry.since,
                    history=self._histories.get(job.id),
                )
            )
        names = {each.id: each.name for each in sites}
        state, words = verdict([each.state for each in sites])
        return PublicStatus(
            title=plain_text(page.title) or "Status",
            at=now,
            state=state,
            verdict=words,
            sites=sites,
            maintenance=self._maintenance(names, now),
            incidents=[
                PublicIncident(
                    id=each.id,
                    site=each.job_id,
                    name=names[each.job_id],
                    started_at=each.started_at,
                    ended_at=each.ended_at,
                )
                for each in completed_outages(
                    self._outages, {each.id: (each.state, each.since) for each in sites}
                )
                if each.job_id in names
            ],
            history_from=self._history_from,
        )

    def _maintenance(self, names: Mapping[int, str], now: float) -> list[PublicMaintenance]:
        found = [
            PublicMaintenance(
                names=[names[job_id] for job_id in sorted(each.sites) if job_id in names],
                all_sites=len(names) > 1 and each.sites >= names.keys(),
                begins_at=each.begins_at,
                ends_at=each.ends_at,
                under_way=each.begins_at <= now,
            )
            for each in self._maintained
            if each.ends_at > now and not each.sites.isdisjoint(names)
        ]
        return sorted(found, key=lambda each: each.begins_at)[:_MOST_MAINTENANCE]
