"""Jobs for live pages: all of them first, in pieces, then a line for each that changed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from monitor.messages import Result
from monitor.probes.job import Job
from monitor.web.jobs.registry import JobRegistry
from monitor.web.live.changes import Change, Changes
from monitor.web.live.page import LivePage
from monitor.yielding import over_turns

__all__ = ["JobFeed"]

# Jobs in one message of a snapshot: 140 KB of JSON, 15 KB compressed. The first one fills a screen.
_PIECE = 200
_FIRST_PIECE = 40
# Some may be those of jobs that are stopped now, or that depend on another one.
_MOST_CHANGES = 400


class _JobLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of a job's entry that changes with each result."""

    id: int
    state: str
    since: float | None = None
    next: float | None = None
    at: float | None = None
    time: float | None = None
    status: int | None = None
    error: str | None = None
    expires: float | None = None
    degraded: bool = False
    until: float | None = None


class JobFeed:
    """A registry's jobs as messages of the live feed; adds to ``changes`` what goes up or down."""

    def __init__(self, book: JobRegistry, changes: Changes) -> None:
        self._book = book
        self._changes = changes
        self._told_listing = 0
        self._told_ids: frozenset[int] = frozenset()
        book.on_change = self._turned

    @property
    def source(self) -> str:
        """Where jobs come from; pages can change those of the ``database``."""
        return self._book.probes.source

    async def refresh(self) -> None:
        """Read what other daemons wrote; raises MonitorError."""
        await self._book.refresh()

    def begin(self, *pages: LivePage) -> None:
        """Begin a snapshot for pages, which :meth:`go_on` sends in pieces, what is down first."""
        ids = self._book.down_first()
        for page in pages:
            page.snapshot, page.unsent = ids, len(ids)
            page.piece = _FIRST_PIECE
            page.write({"type": "jobs", "reset": True, "items": [], "left": len(ids)})

    async def go_on(self, page: LivePage) -> None:
        """Send the next piece of a page's snapshot."""
        start = len(page.snapshot) - page.unsent
        ids = page.snapshot[start : start + page.piece]
        page.unsent -= len(ids)
        page.piece = _PIECE
        await page.write_large(self._added(ids, left=page.unsent))

    @property
    def has_news(self) -> bool:
        """Whether :meth:`news` may have more to return."""
        return bool(self._book.dirty) and not self._book.is_taking

    def skip(self) -> None:
        """Forget the changes up to now: no page is open."""
        book = self._book
        ids = book.ids()
        if self._told_listing != book.listing:
            self._told_ids, self._told_listing = frozenset(ids), book.listing
        book.dirty = set()

    def news(self) -> tuple[dict[str, object] | None, bool]:
        """Return the message of changes since the last call, and whether to begin again.

        If there are many it has only some of them.
        """
        book = self._book
        ids = book.ids()
        if book.is_taking:
            return None, False
        listing, self._told_listing = self._told_listing, book.listing
        if listing != book.listing:
            dirty, book.dirty = book.dirty, set()
            known, self._told_ids = self._told_ids, frozenset(ids)
            changed = dirty | (self._told_ids - known)
            if len(changed) > _PIECE:
                return None, True
            gone = sorted(known - self._told_ids)
            return {**self._added(sorted(changed)), "gone": gone}, False
        dirty = {book.dirty.pop() for _ in range(min(_PIECE, len(book.dirty)))}
        if not dirty:
            return None, False
        items = [self._line(job_id) for job_id in dirty if job_id in book]
        return {"type": "jobs", "items": items}, False

    def _added(self, ids: Iterable[int], **more: int) -> dict[str, object]:
        book = self._book
        items = [msgspec.Raw(book.encoded(job_id)) for job_id in ids if job_id in book]
        return {"type": "jobs", "add": True, "items": items, **more}

    async def older_changes(self) -> list[Change]:
        """Return the last changes that led to present states, as far as the database has them."""
        book = self._book
        found = []
        async for job_id in over_turns(await book.latest_turns(_MOST_CHANGES)):
            if job_id not in book:
                continue
            entry = book.entry(job_id)
            if entry.since is not None and entry.state in ("up", "down") and entry.last:
                found.append(
                    Change(
                        time=entry.since,
                        kind="job",
                        name=entry.name or entry.url,
                        job_id=job_id,
                        to=entry.state,
                        detail=entry.last.error or "",
                    )
                )
        return found

    def _turned(self, job: Job, up: bool, result: Result) -> None:
        self._changes.add(
            Change(
                time=result.scheduled_at,
                kind="job",
                name=job.name or job.shown_url,
                job_id=job.id,
                to="up" if up else "down",
                detail=result.error or "",
            )
        )

    def _line(self, job_id: int) -> _JobLine:
        entry = self._book.entry(job_id)
        last = entry.last
        return _JobLine(
            id=job_id,
            state=entry.state,
            since=entry.since,
            next=entry.next_run,
            until=entry.stopped_until,
            at=None if last is None else last.checked_at,
            time=None if last is None else last.response_time,
            status=None if last is None else last.status,
            error=None if last is None else last.error,
            expires=None if last is None else last.certificate_expires_at,
            degraded=last is not None and last.degraded,
        )
