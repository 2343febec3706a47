"""The live page's WebSocket: a snapshot first, then changes, to all pages at once.

docs/reference/live.md describes the messages. A message for all pages is encoded once, into one
frame. A page that does not read misses updates, but keeps its connection, and gets a snapshot
when it reads again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Any

from monitor import __version__
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.web.context import Context
from monitor.web.http.static_files import version as page_version
from monitor.web.http.websocket import WebSocket
from monitor.web.live.changes import Changes
from monitor.web.live.page import LivePage, frame_of

if TYPE_CHECKING:
    from monitor.logs.part import Logs
    from monitor.logs.reader import LogReader
    from monitor.relay.part import Relay
    from monitor.web.jobs.registry import JobRegistry

__all__ = ["LiveFeed"]

logger = logging.getLogger("monitor.web")

_UPDATE_S = 1.0
_FOLLOW_S = 0.25
# How often to read what other daemons wrote, and how long a new page waits for it.
_OTHERS_S = 2.0
_FIRST_S = 3.0
_MODELS_S = 5.0
# A page that has more to read gets no piece of its snapshot for a moment.
_PIECE_BYTES = 65536
_FULL_S = 0.05
_CHANNELS_SHOWN = 100
_NO_SENDERS = "a sender's token may only upload"


class LiveFeed:
    """All open pages, and what they get; belongs to the loop's thread."""

    def __init__(
        self,
        context: Context,
        *,
        book: JobRegistry | None,
        relay: Relay | None,
        logs: Logs | LogReader | None,
    ) -> None:
        self._context = context
        # How many model events other daemons have written, if this one has no cluster part.
        self._models: int | None = None
        self._outage = OutageLog(logger)
        self._relay = relay
        self._logs = logs
        self._pages: set[LivePage] = set()
        # Set when a page begins to wait for a snapshot, or for more of it.
        self._wanted = asyncio.Event()
        self._changes = Changes()
        self._told_changes = 0
        self._jobs = None
        if book is not None:
            from monitor.web.live.job_updates import JobFeed

            self._jobs = JobFeed(book, self._changes)
        self._incidents = None
        if context.has("alerts") and context.store is not None:
            from monitor.web.live.incident_updates import IncidentFeed

            self._incidents = IncidentFeed(context.store)
        self._notifications = None
        if logs is not None and context.store is not None:
            from monitor.web.live.new_notifications import NewNotifications

            committer = logs.service.committer
            self._notifications = NewNotifications(context.store, lambda: committer.stored)

    def tasks(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return the tasks to run until they are cancelled."""
        return [
            self._update_all,
            self._follow_others,
            self._send_snapshots,
            *([self._follow_channels] if self._relay is not None else []),
            *([self._watch_notifications] if self._notifications is not None else []),
        ]

    async def serve(self, connection: WebSocket) -> None:
        """Serve one page until it is closed."""
        page = LivePage(connection, relay=self._relay, logs=self._logs)
        if not connection.principal.may_read:
            connection.begin_close(1008, _NO_SENDERS)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                await self._refresh()
        self._pages.add(page)
        self._wanted.set()
        try:
            while True:
                asked = await page.take(await connection.receive())
                if "channels" in asked:
                    self._send_channels([page])
                if "notifications" in asked and self._notifications is not None:
                    page.write(self._notifications.message())
                await connection.writable()
        finally:
            self._pages.discard(page)
            page.close()

    # What runs

    async def _update_all(self) -> None:
        """Send all pages what changed, each second; what is much, over some turns of the loop."""
        while True:
            self._update()
            while self._pages and self._jobs is not None and self._jobs.has_news:
                news, again = self._jobs.news()
                self._write([] if news is None else [frame_of(news)], again=again)
                await asyncio.sleep(0)
            await asyncio.sleep(_UPDATE_S)

    async def _follow_others(self) -> None:
        """Read what other daemons write while a page is open."""
        while True:
            if self._pages:
                await self._refresh()
            await asyncio.sleep(_OTHERS_S)

    async def _send_snapshots(self) -> None:
        """Send new pages, and those that missed something, all that there is.

        Their jobs piece by piece, as fast as each one reads.
        """
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            for page in list(self._pages):
                if page.behind and not page.is_full and page.connection.principal.may_read:
                    await self._greet(page)
            while unsent := [page for page in self._pages if page.unsent]:
                ready = [page for page in unsent if page.connection.buffered_bytes < _PIECE_BYTES]
                for page in ready:
                    await self._send_piece(page)
                await asyncio.sleep(0 if ready else _FULL_S)
                if self._wanted.is_set():
                    break

    async def _send_piece(self, page: LivePage) -> None:
        if self._jobs is not None and page.unsent:
            await self._jobs.go_on(page)

    async def _refresh(self) -> None:
        try:
            if self._jobs is not None:
                await self._jobs.refresh()
            if self._incidents is not None:
                await self._incidents.refresh()
            store = self._context.store
            others = self._context.has("cluster") and "cluster" not in self._context.parts
            if store is not None and others:
                ((newest,),) = await store.read(
                    lambda connection: connection.query(
                        "SELECT coalesce(max(seq), 0) FROM model_event"
                    ),
                    timeout=_MODELS_S,
                )
                self._models = int(newest)
        except MonitorError as error:
            self._outage.failed(f"cannot update pages: {error}", cause=error)
        else:
            self._outage.recovered("updating pages again")

    async def _follow_channels(self) -> None:
        """Send pages the news of the channels that they follow."""
        while True:
            # A list: any() alone would stop at the first page that has more.
            more = [page.follow_on() for page in list(self._pages)]
            await asyncio.sleep(0 if any(more) else _FOLLOW_S)

    async def _watch_notifications(self) -> None:
        """Tell pages that show notifications when these change, while there are such pages."""
        found = self._notifications
        assert found is not None
        while True:
            if self._watching("notifications") and await found.changed():
                frame = frame_of(found.message())
                for page in self._watching("notifications"):
                    page.write_frames(frame)
            await asyncio.sleep(_UPDATE_S)

    def _watching(self, what: str) -> list[LivePage]:
        return [page for page in self._pages if what in page.watches and not page.behind]

    # What pages get

    async def _greet(self, page: LivePage) -> None:
        who = page.connection.principal
        context = self._context
        older = () if self._jobs is None else await self._jobs.older_changes()
        # What happens from now on is sent after it.
        page.behind, page.greeted = False, who
        await page.write_large(
            {
                "type": "hello",
                "version": __version__,
                "page": page_version(),
                "time": time.time(),
                "started_at": context.status.started_at,
                "name": who.name,
                "role": who.role.value,
                "sites": None if self._jobs is None else self._jobs.source,
                "has": [
                    *(["jobs"] if self._jobs is not None else []),
                    *(["history"] if context.has("aggregation") else []),
                    *(["models"] if context.has("cluster") else []),
                    *(["incidents"] if self._incidents is not None else []),
                    *(["logs"] if self._logs is not None else []),
                    *(["relay"] if self._relay is not None else []),
                    *(["channels"] if self._relay is not None and page.is_admin else []),
                ],
                "changes": self._changes.with_older(older),
            }
        )
        await page.write_large(self._status())
        if self._jobs is not None:
            self._jobs.begin(page)
        await self._send_piece(page)
        if self._incidents is not None:
            await page.write_large(self._incidents.all())

    def _update(self) -> None:
        status = self._status()
        incidents = None if self._incidents is None else self._incidents.news()
        changes = self._changes.since(self._told_changes)
        self._told_changes = self._changes.total
        if not self._pages:
            if self._jobs is not None:
                self._jobs.skip()
            return
        frames = [frame_of(status)]
        if changes:
            frames.append(frame_of({"type": "changes", "items": changes}))
        jobs, again = (None, False) if self._jobs is None else self._jobs.news()
        if jobs is not None:
            frames.append(frame_of(jobs))
        if incidents is not None:
            frames.append(frame_of(incidents))
        self._write(frames, again=again)
        self._send_channels(self._watching("channels"))

    def _write(self, frames: list[bytes], *, again: bool) -> None:
        """Send frames to all pages that are up to date, and begin their snapshots ``again``."""
        joined = b"".join(frames)
        for page in self._pages:
            who = page.connection.principal
            if not who.may_read:
                page.connection.begin_close(1008, _NO_SENDERS)
            elif page.is_full:
                page.behind = True
            elif page.behind or page.greeted != who:
                page.behind = True
                self._wanted.set()
            else:
                page.write_frames(joined)
        if again and self._jobs is not None:
            self._jobs.begin(*(page for page in self._pages if not page.behind))
            self._wanted.set()

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": "status",
            "time": time.time(),
            "ready": self._context.status.ready and not self._context.status.draining,
            "parts": self._changes.parts(self._context.status.states()),
        }
        if self._outage.problem is not None:
            # What other daemons wrote may be missing, or old.
            found["away"] = self._outage.problem
        relay = self._relay
        if relay is not None:
            found["relay"] = {
                "brokers": relay.feed.brokers,
                "clients": relay.server.client_count,
                "channels": len(relay.channels),
                "history_bytes": relay.channels.counted_bytes,
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
        elif self._models is not None:
            found["models"] = self._models
        return found

    def _send_channels(self, pages: Collection[LivePage]) -> None:
        relay = self._relay
        pages = [page for page in pages if page.is_admin]
        if relay is None or not pages:
            return
        from monitor.web.live.channels import channel_entry

        entries = [
            channel_entry(relay, channel) for channel in relay.channels.latest(_CHANNELS_SHOWN)
        ]
        frame = frame_of({"type": "channels", "items": entries})
        for page in pages:
            page.write_frames(frame)
