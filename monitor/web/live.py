"""The live page's one WebSocket: a snapshot first, then what changes, to all pages at once.

The server's messages have a ``type`` (docs/reference/live.md); the client's are watches, as
``{"watch": ["channels"]}`` and ``{"follow": "CHANNEL"}``, and the log actions, answered as on
/ws. What all pages get is encoded once and written as one frame, the same bytes to each. A page
that takes nothing misses updates, not the connection, and gets a snapshot when it takes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from monitor import __version__
from monitor.errors import MonitorError
from monitor.logfile import RateLimitedLog
from monitor.messages import Result
from monitor.tokens import Role
from monitor.web.changes import Change, Changes
from monitor.web.context import Context
from monitor.web.websocket import WebSocket, text_frame

if TYPE_CHECKING:
    from monitor.logs.part import Logs
    from monitor.logs.reader import LogReader
    from monitor.logs.session import Session
    from monitor.probes.job import Job
    from monitor.relay.channel import Channel
    from monitor.relay.part import Relay
    from monitor.web.jobs import JobBook
    from monitor.web.shared_models import ModelEvents

__all__ = ["LiveFeed"]

_log = logging.getLogger(__name__)

_TICK_S = 0.25
_UPDATE_TICKS = 4
# How often what other daemons wrote is read, and how long a new page waits for it.
_OTHERS_S = 2.0
_FIRST_S = 3.0
# What a page may not be sent unless it takes it: then it gets a snapshot later.
_BEHIND_BYTES = 1024 * 1024
_CHANNELS_SHOWN = 100
_FOLLOWED_AT_ONCE_BYTES = 256 * 1024
_LONGEST_NAME = 4096

_encode = msgspec.json.Encoder().encode


class _Asked(msgspec.Struct):
    """What a page may send besides the log actions."""

    watch: list[str] | msgspec.UnsetType = msgspec.UNSET
    follow: str | msgspec.UnsetType | None = msgspec.UNSET
    action: msgspec.Raw = msgspec.Raw()


class _JobLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """As much of a job's entry as changes with each result."""

    id: int
    state: str
    since: float | None = None
    next: float | None = None
    at: float | None = None
    time: float | None = None
    status: int | None = None
    error: str | None = None
    expires: float | None = None


class _Page:
    """One open page."""

    def __init__(self, connection: WebSocket) -> None:
        self.connection = connection
        self.behind = False
        self.watches: frozenset[str] = frozenset()
        self.followed: bytes | None = None
        self.channel: Channel | None = None
        self.position = 0
        self.ended = False
        self.session: Session | None = None

    @property
    def is_admin(self) -> bool:
        return self.connection.principal.role is Role.ADMIN


class LiveFeed:
    """All open pages, and what they are told; belongs to the loop's thread."""

    def __init__(
        self,
        context: Context,
        *,
        book: JobBook | None,
        relay: Relay | None,
        logs: Logs | LogReader | None,
        events: ModelEvents | None = None,
    ) -> None:
        self._context = context
        self._book = book
        self._events = events
        self._log = RateLimitedLog(_log)
        self._relay = relay
        self._logs = logs
        self._pages: set[_Page] = set()
        self._changes = Changes()
        self._told_changes = 0
        self._told_models: float = 0
        self._told_listing = 0
        if book is not None:
            book.on_change = self._job_changed

    async def run(self) -> None:
        """Tell all pages what changed, each second, until cancelled."""
        ticks = 0
        while True:
            if self._relay is not None:
                for page in list(self._pages):
                    if page.followed is not None:
                        self._follow_on(page, self._relay)
            if ticks % _UPDATE_TICKS == 0:
                self._update()
            ticks += 1
            await asyncio.sleep(_TICK_S)

    async def follow_others(self) -> None:
        """Read what other daemons write as long as somebody looks, until cancelled."""
        while True:
            if self._pages:
                await self._refresh()
            await asyncio.sleep(_OTHERS_S)

    async def _refresh(self) -> None:
        try:
            if self._book is not None:
                await self._book.refresh()
            if self._events is not None:
                await self._events.refresh()
        except MonitorError as error:
            self._log.warning("database", "pages are not told what is new: %s", error)

    async def serve(self, connection: WebSocket) -> None:
        """Serve one page until it goes."""
        page = _Page(connection)
        if not connection.principal.may_read:
            connection.begin_close(1008, "a sender's token may only upload")
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                await self._refresh()
        self._greet(page)
        self._pages.add(page)
        try:
            while True:
                await self._asked(page, await connection.receive())
                await connection.writable()
        finally:
            self._pages.discard(page)
            if page.session is not None:
                page.session.close()

    # What a page asks

    async def _asked(self, page: _Page, data: bytes) -> None:
        try:
            asked = msgspec.json.decode(data, type=_Asked)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            page.connection.write(_frame({"type": "error", "message": "not understood"}))
            return
        if bytes(asked.action):
            await self._log_action(page, data)
            return
        if asked.watch is not msgspec.UNSET:
            page.watches = frozenset(asked.watch)
            if "channels" in page.watches:
                self._send_channels([page])
        if asked.follow is not msgspec.UNSET and page.is_admin and self._relay is not None:
            name = asked.follow
            page.followed = None if not name else name[:_LONGEST_NAME].encode(errors="replace")
            page.channel, page.ended = None, False
            if page.followed is not None:
                page.connection.write(_frame({"type": "channel", "name": name, "reset": True}))
                self._follow_on(page, self._relay)

    async def _log_action(self, page: _Page, data: bytes) -> None:
        if self._logs is None:
            page.connection.write(_frame({"type": "error", "message": "logs are off here"}))
            return
        if page.session is None:
            from monitor.web.routes.logs import SocketFollower

            await self._logs.attend()

            def send(answer: bytes) -> None:
                page.connection.write(text_frame(answer))

            page.session = self._logs.session(send=send, follower=SocketFollower(page.connection))
        await page.session.receive(data, page.connection.principal)

    # What pages are told

    def _greet(self, page: _Page) -> None:
        who = page.connection.principal
        context = self._context
        page.connection.write(
            _frame(
                {
                    "type": "hello",
                    "version": __version__,
                    "time": time.time(),
                    "started_at": context.status.started_at,
                    "name": who.name,
                    "role": who.role.value,
                    "has": [
                        *(["jobs"] if self._book is not None else []),
                        *(["history"] if context.has("aggregation") else []),
                        *(["models"] if context.has("cluster") else []),
                        *(["logs"] if self._logs is not None else []),
                        *(["relay"] if self._relay is not None else []),
                        *(["channels"] if self._relay is not None and page.is_admin else []),
                    ],
                    "changes": self._changes.with_older(self._older_changes()),
                }
            )
        )
        page.connection.write(_frame(self._status()))
        if self._book is not None:
            page.connection.write(self._snapshot(self._book))
        page.behind = False

    def _update(self) -> None:
        status = self._status()
        book = self._book
        dirty: set[int] = set()
        if book is not None:
            book.ids()  # looks for other jobs
            dirty, book.dirty = book.dirty, dirty
        changes = self._changes.since(self._told_changes)
        self._told_changes = self._changes.total
        listed_anew = book is not None and book.listing != self._told_listing
        self._told_listing = 0 if book is None else book.listing
        if not self._pages:
            return
        frames = [_frame(status)]
        if changes:
            frames.append(_frame({"type": "changes", "items": changes}))
        if book is not None and listed_anew:
            frames.append(self._snapshot(book))
        elif book is not None and dirty:
            lines = [_line(book, job_id) for job_id in dirty]
            frames.append(_frame({"type": "jobs", "items": lines}))
        for page in self._pages:
            if page.connection.buffered_bytes > _BEHIND_BYTES:
                page.behind = True
            elif page.behind:
                self._greet(page)
            else:
                for frame in frames:
                    page.connection.write(frame)
        self._send_channels([page for page in self._pages if "channels" in page.watches])

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": "status",
            "time": time.time(),
            "ready": self._context.status.ready and not self._context.status.draining,
            "parts": self._changes.parts(self._context.status.states()),
        }
        relay = self._relay
        if relay is not None:
            found["relay"] = {
                "clients": relay.server.client_count,
                "channels": len(relay.channels),
                "history_bytes": relay.channels.history_bytes,
                "messages": relay.receiver.received,
                "deliveries": relay.server.delivery.deliveries,
            }
        cluster = self._context.parts.get("cluster")
        if cluster is not None:
            found["models"] = sum(
                value
                for metric in cluster.metrics()
                if metric.name == "model_updates_total"
                for _, value in metric.samples
            )
        elif self._events is not None:
            found["models"] = self._events.newest
        return found

    def _snapshot(self, book: JobBook) -> bytes:
        items = [msgspec.Raw(book.encoded(job_id)) for job_id in book.ids()]
        return _frame({"type": "jobs", "reset": True, "items": items})

    def _send_channels(self, pages: list[_Page]) -> None:
        relay = self._relay
        pages = [page for page in pages if page.is_admin and not page.behind]
        if relay is None or not pages:
            return
        from monitor.web.routes.channels import channel_entry

        entries = [
            channel_entry(relay, channel) for channel in relay.channels.latest(_CHANNELS_SHOWN)
        ]
        frame = _frame({"type": "channels", "items": entries})
        for page in pages:
            page.connection.write(frame)

    def _follow_on(self, page: _Page, relay: Relay) -> None:
        """Send what the followed channel has beyond the page's position, as the relay would."""
        name = page.followed
        assert name is not None
        connection = page.connection
        channel = relay.channels.get(name)
        if channel is not page.channel:
            if channel is None:
                return  # forgotten by now; what the page has stands
            page.channel, page.position, page.ended = channel, channel.first, False
            connection.write(
                _frame({"type": "channel", "name": name.decode(errors="replace"), "reset": True})
            )
        if channel is None or page.ended:
            return
        page.position = max(page.position, channel.first)
        while page.position < channel.end and connection.buffered_bytes <= _BEHIND_BYTES:
            frames, page.position = channel.read(page.position, _FOLLOWED_AT_ONCE_BYTES)
            connection.write(bytes(frames))
        if channel.ended and page.position == channel.end:
            page.ended = True
            connection.write(
                _frame({"type": "channel", "name": name.decode(errors="replace"), "ended": True})
            )

    # Changes of jobs

    def _job_changed(self, job: Job, up: bool, result: Result) -> None:
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

    def _older_changes(self) -> Iterator[Change]:
        """Yield how jobs came to stand as they do, as far as the database knew at the start."""
        book = self._book
        if book is None:
            return
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


def _frame(message: dict[str, Any]) -> bytes:
    return text_frame(_encode(message))


def _line(book: JobBook, job_id: int) -> _JobLine:
    entry = book.entry(job_id)
    last = entry.last
    return _JobLine(
        id=job_id,
        state=entry.state,
        since=entry.since,
        next=entry.next_run,
        at=None if last is None else last.checked_at,
        time=None if last is None else last.response_time,
        status=None if last is None else last.status,
        error=None if last is None else last.error,
        expires=None if last is None else last.certificate_expires_at,
    )
