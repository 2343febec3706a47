"""Jobs for live pages: all of them first, in pieces, then a line for each that changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from monitor.messages import Result
from monitor.probes.job import Job
from monitor.web.jobs.registry import JobRegistry
from monitor.web.live.changes import Change, Changes
from monitor.web.live.page import LivePage

__all__ = ["JobFeed"]

# Jobs in one message of a snapshot: 140 KB of JSON, 15 KB compressed. The first one fills a screen.
_PIECE = 200
_FIRST_PIECE = 40


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

    def begin(self, page: LivePage) -> None:
        """Begin a snapshot for a page, which :meth:`go_on` sends in pieces, what is down first."""
        ids = self._book.ids()
        down = self._book.down_since()
        page.unsent = deque(sorted(ids, key=lambda job_id: job_id not in down))
        page.piece = _FIRST_PIECE
        page.write({"type": "jobs", "reset": True, "items": [], "left": len(ids)})

    async def go_on(self, page: LivePage) -> None:
        """Send the next piece of a page's snapshot."""
        ids = [page.unsent.popleft() for _ in range(min(page.piece, len(page.unsent)))]
        page.piece = _PIECE
        await page.write_large(self._added(ids, left=len(page.unsent)))

    def news(self) -> tuple[dict[str, object] | None, bool]:
        """Return the message of the changes since the last call, and whether to begin again."""
        book = self._book
        ids = book.ids()
        if book.is_taking:
            return None, False
        dirty, book.dirty = book.dirty, set()
        listing, self._told_listing = self._told_listing, book.listing
        if listing != book.listing:
            known, self._told_ids = self._told_ids, frozenset(ids)
            changed = dirty | (self._told_ids - known)
            if len(changed) > _PIECE:
                return None, True
            gone = sorted(known - self._told_ids)
            return {**self._added(sorted(changed)), "gone": gone}, False
        if not dirty:
            return None, False
        items = [self._line(job_id) for job_id in dirty if job_id in book]
        return {"type": "jobs", "items": items}, False

    def _added(self, ids: Iterable[int], **more: int) -> dict[str, object]:
        book = self._book
        items = [msgspec.Raw(book.encoded(job_id)) for job_id in ids if job_id in book]
        return {"type": "jobs", "add": True, "items": items, **more}

    def older_changes(self) -> Iterator[Change]:
        """Yield the changes that led to the present states, as far as the database has them."""
        book = self._book
        for job_id in book.ids():
            if not book.has_turned(job_id):
                continue
            entry = book.entry(job_id)
            if entry.since is not None and entry.state in ("up", "down") and entry.last:
                yield Change(
                    time=entry.since,
                    kind="job",
                    name=entry.name or entry.url,
                    job_id=job_id,
                    to=entry.state,
                    detail=entry.last.error or "",
                )

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
