"""The log actions done: uploads judged and committed, pages read, live tails fed.

Transports give each connection a :class:`~monitor.logs.session.Session` of this service.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence

import msgspec

from monitor.errors import MonitorError, UnavailableError
from monitor.log_limits import RateLimitedLog
from monitor.logs import answers
from monitor.logs.actions import Upload
from monitor.logs.answers import ActionError, ErrorCode, Head
from monitor.logs.commits import Committer, describe, is_to_blame
from monitor.logs.digest import UploadDigest
from monitor.logs.entries import MAX_AHEAD_S, Entry, Reason, Rejected, Rules, judge
from monitor.logs.filters import Kind, Query
from monitor.logs.followers import LiveTail
from monitor.logs.limits import Allowances
from monitor.logs.pages import page
from monitor.logs.settings import LogsSettings
from monitor.logs.tables import AcceptedUpload, UploadKey, partition_width_s
from monitor.store import Connection, Store
from monitor.tokens import ANYONE, Principal

__all__ = ["LogService"]

logger = logging.getLogger("monitor.logs")

# A query that takes longer asks for too much at once.
_QUERY_TIMEOUT_S = 10.0
# Entries judged in one turn of the loop.
_SLICE = 1000
# Notifications without a window may be of any time since the epoch.
_EPOCH = 0.0
_MAX_PEERS = 1000


class LogService:
    """What all connections share; belongs to the loop's thread.

    ``now`` gives s since the epoch, ``clock`` s that never go back.
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
        # Called with each block of our own; says whether it is yet to be published here.
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
        self._allowances: dict[str, Allowances] = {}
        self._peers: dict[str, Allowances] = {}  # the latest last

    def adopt(self, settings: LogsSettings) -> None:
        """Take new settings; all of them apply from now on."""
        self.settings = settings
        self.committer.max_pending_bytes = settings.max_pending_bytes
        self.committer.width_s = partition_width_s(settings.timewindow)
        self._allowances.clear()

    # Limits

    def allowances(self) -> Allowances:
        """Return fresh ones, as each connection has."""
        return Allowances(self.settings, self.clock())

    def token_allowances(self, principal: Principal) -> Allowances:
        """Return those that all connections of one token share."""
        found = self._allowances.get(principal.name)
        if found is None:
            # There are no more of them than tokens.
            found = self._allowances[principal.name] = self.allowances()
        return found

    def check(self, *allowances: Allowances) -> None:
        """Raise ActionError where one of them is used up."""
        now = self.clock()
        wait = max(each.wait_s(self.settings, now) for each in allowances)
        if wait > 0:
            problem = "more than is allowed a second"
            raise ActionError(ErrorCode.RATE_LIMITED, problem, retry_after=wait)

    def admit(self, principal: Principal, *, peer: str, size: int) -> None:
        """Count a request of ``size`` bytes that comes without a session; raises ActionError.

        Its token's allowances are those of the token's sessions. Without tokens its ``peer``
        has some, by its address.
        """
        if principal is not ANYONE:
            allowances = self.token_allowances(principal)
        else:
            # Without tokens only this machine is served, but it has many addresses.
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

    def count(self, reason: str, number: int = 1) -> None:
        """Count what was refused, for /metrics; ``reason`` comes from a fixed set."""
        self.rejected[reason] = self.rejected.get(reason, 0) + number

    # Actions

    async def upload(self, upload: Upload, principal: Principal) -> asyncio.Future[bytes]:
        """Judge an upload and queue it; the future gives the answer once it is committed.

        Raises ActionError, and so does the future.
        """
        if not principal.may_upload:
            raise ActionError(ErrorCode.FORBIDDEN, "a reader's token may not upload")
        if not self._takes_uploads:
            problem = "the logs part is off here: upload to a daemon where it is on"
            raise ActionError(ErrorCode.FORBIDDEN, problem)
        digest = None if upload.upload_id is None else UploadDigest()
        accepted, rejected = await self._judge(upload, principal, digest)
        for rejection in rejected:
            self.count(rejection.reason)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if upload.upload_id is None or digest is None:
            key, kept, sent = None, "", ""
            if not accepted:
                answer.set_result(_answer(upload, 0, rejected))
                return answer
        else:
            # Also where nothing is accepted: the first time it may have been.
            key = UploadKey(principal.sender or upload.sender, upload.upload_id, upload.kind)
            kept = msgspec.json.encode([len(accepted), rejected]).decode()
            sent = digest.text()
        done = self.committer.submit(AcceptedUpload(upload.kind, accepted, key, kept, sent))

        def finished(done: asyncio.Future[str | None]) -> None:
            if answer.done():
                return
            error = None if done.cancelled() else done.exception()
            if done.cancelled():
                answer.cancel()
            elif error is not None:
                answer.set_exception(error)
            else:
                before = done.result()
                judged = (len(accepted), rejected) if before is None else _judged(before)
                try:
                    answer.set_result(_answer(upload, *judged))
                except ActionError as refusal:
                    answer.set_exception(refusal)

        done.add_done_callback(finished)
        return answer

    async def _judge(
        self, upload: Upload, principal: Principal, digest: UploadDigest | None
    ) -> tuple[Sequence[Entry], Sequence[Rejected]]:
        rules = self._rules(upload.kind, principal.sender)
        if len(upload.items) <= _SLICE:
            if digest is not None:
                digest.add(upload.items)
            return judge(upload.items, rules)
        accepted: list[Entry] = []
        rejected: list[Rejected] = []
        for start in range(0, len(upload.items), _SLICE):
            items = upload.items[start : start + _SLICE]
            some, others = judge(items, rules, first=start)
            if digest is not None:
                digest.add(items)
            accepted += some
            rejected += others
            await asyncio.sleep(0)
        return accepted, rejected

    def _rules(self, kind: Kind, sender: str | None) -> Rules:
        now, settings = self.now(), self.settings
        window = settings.timewindow if kind is Kind.LOGS else settings.keep_notifications
        oldest = _EPOCH if window is None else now - window
        return Rules(oldest, now + MAX_AHEAD_S, settings.max_entry_bytes, sender)

    async def list(self, query: Query, principal: Principal, head: Head) -> bytes:
        """Read a page and return the answer; raises ActionError."""
        if not principal.may_read:
            raise ActionError(ErrorCode.FORBIDDEN, "a sender's token may only upload")
        settings = self.settings
        kept = settings.timewindow if query.kind is Kind.LOGS else settings.keep_notifications
        windows = [each for each in (kept, query.window_s) if each is not None]

        def read_and_encode(connection: Connection) -> bytes:
            # In the store's thread, and so is the encoding of ten thousand entries. It may have
            # waited for it, and the window is that of now.
            oldest = self.now() - min(windows) if windows else None
            entries, cursor = page(
                connection, query, oldest=oldest, max_bytes=settings.max_message_bytes
            )
            return answers.listed(head, query.kind, entries, cursor)

        try:
            return await self._store.read(read_and_encode, timeout=_QUERY_TIMEOUT_S)
        except MonitorError as error:
            self._queries_log.warning("query", "a query failed: %s", error)
            problem = str(error)  # as where its file or its directory is missing
            if isinstance(error, UnavailableError):
                problem = f"no answer from the database in {_QUERY_TIMEOUT_S:.0f} s, or it is away;"
                problem += " a narrower query may help"
            raise ActionError(ErrorCode.UNAVAILABLE, problem, retry_after=1.0) from None
        except Exception as error:  # noqa: BLE001 - one query must not end its connection
            self._queries_log.warning("defect", "a query failed: %s", describe(error))
            if is_to_blame(error):
                problem = "the database refuses this query's sender, contains or cursor"
                raise ActionError(ErrorCode.BAD_REQUEST, problem) from None
            problem = "the server failed"
            raise ActionError(ErrorCode.UNAVAILABLE, problem, retry_after=1.0) from None

    def _committed(self, entries: Sequence[Entry], block: int | None) -> None:
        if block is None or self.on_own_block(block):
            self.publish(entries)

    def publish(self, entries: Sequence[Entry]) -> None:
        """Give committed entries, ours or another instance's, to those who follow.

        Another instance may keep what is too old here, and its entries may have been long on
        their way.
        """
        oldest = self.now() - self.settings.timewindow
        self.tail.publish([entry for entry in entries if entry.time >= oldest])

    def rejections(self) -> Iterator[tuple[str, int]]:
        """Yield each reason and how often."""
        yield from self.rejected.items()


def _refusal(rejected: Rejected) -> ActionError:
    code = (
        ErrorCode.TOO_LARGE
        if rejected.reason is Reason.ENTRY_TOO_LARGE
        else ErrorCode.FORBIDDEN
        if rejected.reason is Reason.WRONG_SENDER
        else ErrorCode.BAD_REQUEST
    )
    return ActionError(code, rejected.message, rejected=[rejected])


def _answer(upload: Upload, accepted: int, rejected: Sequence[Rejected]) -> bytes:
    """Return the answer to an upload; raises ActionError where its one entry is rejected."""
    if upload.single and rejected:
        raise _refusal(rejected[0])
    return answers.stored(upload.head, accepted, rejected)


def _judged(kept: str) -> tuple[int, Sequence[Rejected]]:
    """Return what became of an upload when it came first."""
    return msgspec.json.decode(kept, type=tuple[int, list[Rejected]])
