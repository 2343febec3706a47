"""The log actions: validates and commits uploads, reads pages, feeds live tails.

Each connection of a transport has a :class:`~monitor.logs.session.Session` of this service.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from monitor.errors import MonitorError, UnavailableError
from monitor.log_limits import RateLimitedLog
from monitor.logs import answers
from monitor.logs.actions import Upload
from monitor.logs.answers import ActionError, ErrorCode, Head
from monitor.logs.commits import Committer, describe, is_to_blame
from monitor.logs.entries import MAX_AHEAD_S, Entry, Reason, Rejected, Rules, UploadDigest, validate
from monitor.logs.expressions import Expressions
from monitor.logs.filters import Kind, Query
from monitor.logs.followers import LiveTail
from monitor.logs.histogram import Bars, Histogram, histogram, oldest
from monitor.logs.limits import Allowances
from monitor.logs.pages import Placed, page, read
from monitor.logs.scans import Read, Select, matches, scanned_page
from monitor.logs.searches import Searches
from monitor.logs.settings import LogsSettings
from monitor.logs.tables import AcceptedUpload, UploadKey, partition_width_s
from monitor.store import Connection, Store
from monitor.tokens import ANYONE, Principal

__all__ = ["LogService"]

logger = logging.getLogger("monitor.logs")

T = TypeVar("T")

# The shortest time that a histogram divides.
_SHORTEST_S: Final = 1.0
# A query that takes longer is too broad.
_QUERY_TIMEOUT_S = 10.0
# How long a page with a regular expression looks at entries; its cursor leads to the others.
_LOOK_S = 3.0
# Entries validated in one turn of the loop.
_SLICE = 1000
# Without a window, notifications may have any time since the epoch.
_EPOCH = 0.0
_MAX_PEERS = 1000
_CODES = {
    Reason.ENTRY_TOO_LARGE: ErrorCode.TOO_LARGE,
    Reason.WRONG_SENDER: ErrorCode.FORBIDDEN,
}


class LogService:
    """The shared state of all connections; for the thread of the loop.

    ``now`` returns s since the epoch, ``clock`` s that never go back.
    """

    def __init__(
        self,
        settings: LogsSettings,
        store: Store,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        takes_uploads: bool = True,
    ) -> None:
        self.settings = settings
        self._takes_uploads = takes_uploads
        self._store = store
        self.now = now
        self.clock = clock
        self.tail = LiveTail()
        self.instance = secrets.token_hex(8)
        self.rejected: dict[str, int] = {}
        # Called with each own block; returns whether it is still to be published here.
        self.on_own_block: Callable[[int], bool] = lambda _: True
        self.committer = Committer(
            store,
            max_pending_bytes=settings.max_pending_bytes,
            width_s=partition_width_s(settings.timewindow),
            instance=self.instance,
            now=now,
            committed=self._committed,
        )
        self._queries_log = RateLimitedLog(logger)
        self._searches = Searches()
        self._expressions = Expressions()
        self._matching = Searches()
        self._allowances: dict[str, Allowances] = {}
        self._peers: dict[str, Allowances] = {}  # in order of use

    def deaf(self) -> str | None:
        """Return why commits of other instances do not arrive now, or None."""
        return self._store.deaf()

    def adopt(self, settings: LogsSettings) -> None:
        """Apply new settings."""
        self.settings = settings
        self.committer.max_pending_bytes = settings.max_pending_bytes
        self.committer.width_s = partition_width_s(settings.timewindow)
        self._allowances.clear()

    # Limits

    def allowances(self) -> Allowances:
        """Return the limits of a new connection."""
        return Allowances(self.settings, self.clock())

    def token_allowances(self, principal: Principal) -> Allowances:
        """Return the limits that all connections of one token share."""
        found = self._allowances.get(principal.name)
        if found is None:
            # Bounded by the number of tokens.
            found = self._allowances[principal.name] = self.allowances()
        return found

    def check(self, *allowances: Allowances) -> None:
        """Raise ActionError if one of the limits is exceeded."""
        now = self.clock()
        wait = max(each.wait_s(self.settings, now) for each in allowances)
        if wait > 0:
            problem = "too many entries or bytes per second"
            raise ActionError(ErrorCode.RATE_LIMITED, problem, retry_after=wait)

    def admit(self, principal: Principal, *, peer: str, size: int) -> Allowances:
        """Count a request of ``size`` bytes without a session; raises ActionError.

        Returns the limits that it counts for: more entries than one are still to be subtracted.

        It shares the limits of the sessions with its token. Without tokens, each ``peer`` address
        has limits of its own.
        """
        if principal is not ANYONE:
            allowances = self.token_allowances(principal)
        else:
            # Without tokens only this machine is served, which has many addresses.
            allowances = self._peers[peer] = (
                self._peers.pop(peer) if peer in self._peers else self.allowances()
            )
            if len(self._peers) > _MAX_PEERS:
                del self._peers[next(iter(self._peers))]
        try:
            self.check(allowances)
        except ActionError as error:
            self.count(error.code)
            raise
        allowances.entries.spend(1)
        allowances.bytes.spend(size)
        return allowances

    def count(self, reason: str, number: int = 1) -> None:
        """Count refused requests and entries, for /metrics; ``reason`` is from a fixed set."""
        self.rejected[reason] = self.rejected.get(reason, 0) + number

    # Actions

    async def upload(self, upload: Upload, principal: Principal) -> asyncio.Future[bytes]:
        """Validate an upload and queue it; the future returns the answer after the commit.

        Raises ActionError, as does the future.
        """
        if not principal.may_upload:
            raise ActionError(ErrorCode.FORBIDDEN, "a reader's token may not upload")
        if not self._takes_uploads:
            problem = "the logs part is off in this daemon: upload to another one"
            raise ActionError(ErrorCode.FORBIDDEN, problem)
        digest = None if upload.upload_id is None else UploadDigest()
        accepted, rejected = await self._validate(upload, principal, digest)
        for rejection in rejected:
            self.count(rejection.reason)
        if upload.upload_id is None or digest is None:
            key, kept, sent = None, "", ""
            if not accepted:
                answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
                answer.set_result(_answer(upload, 0, rejected))
                return answer
        else:
            # Even if nothing is accepted: the first time something may have been.
            key = UploadKey(principal.sender or upload.sender, upload.upload_id, upload.kind)
            kept = msgspec.json.encode([len(accepted), rejected]).decode()
            sent = digest.text()
        done = self.committer.submit(AcceptedUpload(upload.kind, accepted, key, kept, sent))

        async def committed() -> bytes:
            before = await done
            if before is None:
                return _answer(upload, len(accepted), rejected)
            # The outcome of the first upload, from its stored answer.
            first = msgspec.json.decode(before, type=tuple[int, list[Rejected]])
            return _answer(upload, *first)

        return asyncio.create_task(committed())

    async def _validate(
        self, upload: Upload, principal: Principal, digest: UploadDigest | None
    ) -> tuple[Sequence[Entry], Sequence[Rejected]]:
        now, settings = self.now(), self.settings
        window = settings.timewindow if upload.kind is Kind.LOGS else settings.keep_notifications
        oldest = _EPOCH if window is None else now - window
        rules = Rules(oldest, now + MAX_AHEAD_S, settings.max_entry_bytes, principal.sender)
        accepted: list[Entry] = []
        rejected: list[Rejected] = []
        for start in range(0, len(upload.items), _SLICE):
            items = upload.items[start : start + _SLICE]
            some, others = validate(items, rules, first=start)
            if digest is not None:
                digest.add(items)
            accepted += some
            rejected += others
            if start + _SLICE < len(upload.items):
                await asyncio.sleep(0)
        return accepted, rejected

    async def close(self) -> None:
        """End the processes that match regular expressions."""
        await self._expressions.close()
        await self.tail.close()

    async def list(self, query: Query, principal: Principal, head: Head) -> bytes:
        """Read a page and return the answer; raises ActionError."""
        if query.filter.regexp is not None:
            expires = self.clock() + _LOOK_S
            entries, cursor = await scanned_page(
                query,
                self._parts(principal),
                self._select(principal),
                max_bytes=self.settings.max_message_bytes,
                expired=lambda: self.clock() >= expires,
            )
            return await asyncio.to_thread(answers.listed, head, query.kind, entries, cursor)

        def read_and_encode(connection: Connection) -> bytes:
            # Runs in a thread of the store, including the encoding of up to 10,000 entries. The
            # call may have waited for the thread, so the window is computed here.
            entries, cursor = page(
                connection,
                query,
                oldest=self._oldest(query),
                max_bytes=self.settings.max_message_bytes,
            )
            return answers.listed(head, query.kind, entries, cursor)

        return await self._read(read_and_encode, query, principal)

    async def histogram(self, query: Query, principal: Principal, *, bars: int) -> Histogram:
        """Count the entries of a query in ``bars`` equal spans; raises ActionError."""

        def span(connection: Connection) -> tuple[float, float]:
            end = self.now() if query.until is None else query.until
            begin = self._oldest(query)
            if begin is None:
                begin = oldest(connection, query.kind, before=end)
            return min(begin, end - _SHORTEST_S), end

        def count(connection: Connection) -> Histogram:
            begin, end = span(connection)
            return histogram(connection, query, begin=begin, end=end, bars=bars)

        if query.filter.regexp is None:
            return await self._read(count, query, principal)
        begin, end = await self._read(span, query, principal)
        counts, query = Bars(begin, end, bars), dataclasses.replace(query, since=begin, until=end)
        parts, select = self._parts(principal), self._select(principal)
        expires = self.clock() + _QUERY_TIMEOUT_S
        async with contextlib.aclosing(matches(query, parts, select)) as found:
            async for matching, rest in found:
                counts.count(each.entry for each in matching)
                if rest is not None and self.clock() >= expires:
                    problem = (
                        f"too many entries to look at in {_QUERY_TIMEOUT_S:.0f} s: narrow the query"
                    )
                    raise ActionError(ErrorCode.UNAVAILABLE, problem, retry_after=1.0)
        return counts.histogram()

    def _parts(self, principal: Principal) -> Read:
        """Return a function that reads the entries of a query in parts."""

        async def read_part(
            query: Query, *, max_bytes: int, newer: bool
        ) -> tuple[list[Placed], bool]:
            def read_now(connection: Connection) -> tuple[list[Placed], bool]:
                # The call may have waited, so the window is computed here.
                oldest = self._oldest(query)
                return read(connection, query, oldest=oldest, max_bytes=max_bytes, newer=newer)

            return await self._read(read_now, query, principal)

        return read_part

    def _select(self, principal: Principal) -> Select:
        """Return a function that matches messages, in turns with all others."""

        async def select(regexp: str, messages: Sequence[str]) -> list[int]:
            async with self._matching.turn(principal.name):
                return await self._expressions.select(regexp, messages)

        return select

    def _oldest(self, query: Query) -> float | None:
        """Return the least time of the query's entries, as it is now; None if there is none."""
        settings = self.settings
        kept = settings.timewindow if query.kind is Kind.LOGS else settings.keep_notifications
        windows = [each for each in (kept, query.window_s) if each is not None]
        found = self.now() - min(windows) if windows else None
        if query.since is not None:
            found = query.since if found is None else max(found, query.since)
        return found

    async def _read(
        self, function: Callable[[Connection], T], query: Query, principal: Principal
    ) -> T:
        """Read from the database for a query; raises ActionError."""
        if not principal.may_read:
            raise ActionError(ErrorCode.FORBIDDEN, "a sender's token may only upload")
        try:
            if not query.filter.searches:
                return await self._store.read(function, timeout=_QUERY_TIMEOUT_S)
            async with self._searches.turn(principal.name):
                return await self._store.read(function, timeout=_QUERY_TIMEOUT_S)
        except ActionError:
            raise
        except MonitorError as error:
            if not error.logged:
                self._queries_log.warning("query", "a query failed: %s", error)
            problem = str(error)  # for example a missing file or directory
            if isinstance(error, UnavailableError):
                problem = (
                    f"the database is unavailable, or did not respond in {_QUERY_TIMEOUT_S:.0f} s;"
                    " a narrower query may help"
                )
            raise ActionError(ErrorCode.UNAVAILABLE, problem, retry_after=1.0) from None
        except Exception as error:  # noqa: BLE001 - one query must not end its connection
            self._queries_log.warning("defect", "a query failed: %s", describe(error))
            if is_to_blame(error):
                problem = "the database rejects sender, contains or cursor of this query"
                raise ActionError(ErrorCode.BAD_REQUEST, problem) from None
            problem = "the server failed"
            raise ActionError(ErrorCode.UNAVAILABLE, problem, retry_after=1.0) from None

    def _committed(self, entries: Sequence[Entry], block: int | None) -> None:
        if block is None or self.on_own_block(block):
            self.publish(entries)

    def publish(self, entries: Sequence[Entry]) -> None:
        """Send committed entries, own or of another instance, to followers.

        Entries that are too old here are left out: another instance may keep them for longer, or
        they may have been delayed.
        """
        oldest = self.now() - self.settings.timewindow
        self.tail.publish([entry for entry in entries if entry.time >= oldest])


def _answer(upload: Upload, accepted: int, rejected: Sequence[Rejected]) -> bytes:
    """Return the answer to an upload; raises ActionError if its only entry is rejected."""
    if upload.single and rejected:
        only = rejected[0]
        code = _CODES.get(only.reason, ErrorCode.BAD_REQUEST)
        raise ActionError(code, only.message, rejected=rejected)
    return answers.stored(upload.head, accepted, rejected)
