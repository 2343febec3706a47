"""Group commit: uploads of many connections share a transaction.

Uploads that arrive during a transaction are gathered for the next one. So a single upload does not
wait, and a thousand concurrent ones share a commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.logs.answers import ActionError, ErrorCode
from monitor.logs.entries import Entry
from monitor.logs.filters import Kind
from monitor.logs.tables import AcceptedUpload, Committed, commit
from monitor.store import Store

__all__ = ["Committer", "describe", "is_to_blame"]

logger = logging.getLogger("monitor.logs")

# Entries per transaction. On SQLite it blocks all other writers, so it must be short.
_GROUP: Final = {"postgresql": 20_000, "sqlite": 3_000}
_COMMIT_TIMEOUT_S: Final = 20.0
_RETRY_AFTER_S: Final = 1.0
# Memory of an entry in addition to its text.
_ENTRY_BYTES: Final = 200


@dataclass(slots=True)
class _Waiting:
    upload: AcceptedUpload
    size: int
    done: asyncio.Future[str | None] = field(repr=False)


class Committer:
    """Owns the queue of uploads to commit.

    It calls ``committed`` with the new log entries of each commit and their block.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_pending_bytes: int,
        width_s: int,
        instance: str,
        now: Callable[[], float],
        committed: Callable[[Sequence[Entry], int | None], None],
    ) -> None:
        self._store = store
        self.max_pending_bytes = max_pending_bytes
        self.width_s = width_s
        self._instance = instance
        self._now = now
        self._committed = committed
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._settled = asyncio.Event()
        self._settled.set()
        self.stopping = False
        self.outage = OutageLog(logger, outcome="refusing uploads")
        self.stored = 0

    def submit(self, upload: AcceptedUpload) -> asyncio.Future[str | None]:
        """Queue an upload; for a repeat the future returns the answer of the first upload.

        Raises ActionError, as does the future, if it cannot be stored now. The future also does if
        a different upload has the same key.
        """
        size = sum(
            len(entry.message) + len(entry.sender) + _ENTRY_BYTES for entry in upload.entries
        )
        if self.stopping:
            raise _unavailable("the server is stopping")
        if self._bytes + size > self.max_pending_bytes and self._queue:
            raise _unavailable("too many uploads are waiting for the database")
        done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(upload, size, done))
        self._bytes += size
        self._idle.clear()
        self._wake.set()
        return done

    async def run(self) -> None:
        """Commit uploads until cancelled."""
        try:
            while True:
                await self._wake.wait()
                # Give other connections that are ready one turn of the loop to add theirs.
                await asyncio.sleep(0)
                group = self._take()
                if not group:
                    self._wake.clear()
                    self._idle.set()
                    continue
                self._settled.clear()
                try:
                    await self._commit(group)
                finally:
                    self._settled.set()
                    for waiting in group:
                        self._bytes -= waiting.size
                        _refuse_stopping(waiting)
        finally:
            for waiting in self._queue:
                _refuse_stopping(waiting)
            self._queue.clear()
            self._bytes = 0
            self._idle.set()

    async def settled(self) -> None:
        """Wait until the outcome of the current transaction, if any, is known."""
        await self._settled.wait()

    async def flush(self) -> None:
        """Wait until the queue is empty."""
        await self._idle.wait()

    def _take(self) -> list[_Waiting]:
        limit = _GROUP[self._store.dialect]
        group: list[_Waiting] = []
        keys = set()
        count = 0
        while self._queue:
            waiting = self._queue[0]
            count += len(waiting.upload.entries)
            key = waiting.upload.key
            # A repeat goes into a later transaction, where it finds the outcome of the first.
            if group and (count > limit or (key is not None and key in keys)):
                break
            if key is not None:
                keys.add(key)
            group.append(self._queue.popleft())
        return group

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        uploads = [waiting.upload for waiting in group]
        received_at, width_s, instance = self._now(), self.width_s, self._instance
        try:
            done = await self._store.transaction(
                lambda connection: commit(
                    connection, uploads, received_at=received_at, width_s=width_s, instance=instance
                ),
                timeout=_COMMIT_TIMEOUT_S,
            )
        except MonitorError as error:
            self.outage.failed(str(error), cause=error)
            refusal = "the database cannot store uploads now"
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_exception(_unavailable(refusal))
            return
        except Exception as error:  # noqa: BLE001 - one bad upload must not fail the others
            if len(group) > 1:
                for waiting in group:
                    await self._commit([waiting])
                return
            logger.error("cannot store an upload: %s", describe(error))
            refused = ActionError(ErrorCode.BAD_REQUEST, "the database rejects these entries")
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_exception(
                        refused if _is_unstorable(error) else _unavailable("the server failed")
                    )
            return
        self.outage.recovered("storing uploads again")
        self._finish(group, done)

    def _finish(self, group: Sequence[_Waiting], done: Committed) -> None:
        fresh: list[Entry] = []
        for waiting in group:
            key = waiting.upload.key
            repeat = None if key is None else done.repeated.get(key)
            if repeat is None:
                self.stored += len(waiting.upload.entries)
                if waiting.upload.kind is Kind.LOGS:
                    fresh.extend(waiting.upload.entries)
            if waiting.done.done():
                continue
            if key is not None and repeat is not None and not repeat.same:
                problem = (
                    f"upload_id: {key.upload_id!r} was used for another upload; this one is not"
                    " stored"
                )
                waiting.done.set_exception(ActionError(ErrorCode.BAD_REQUEST, problem))
            else:
                waiting.done.set_result(None if repeat is None else repeat.answer)
        if fresh:
            self._committed(fresh, done.block)


def describe(error: Exception) -> str:
    """Return an error of a database driver in one line."""
    first = str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}: {first}"


def is_to_blame(error: Exception) -> bool:
    """Return whether the data of the client is the cause of an error, not the server."""
    # The name is the same in all drivers (PEP 249).
    return any(kind.__name__ == "DataError" for kind in type(error).__mro__)


def _is_unstorable(error: Exception) -> bool:
    """Return whether no table of this database could hold the entries."""
    # 22021 and 22P05: characters that its encoding does not have. SQLite gives no code.
    return is_to_blame(error) and getattr(error, "pgcode", None) in (None, "22021", "22P05")


def _refuse_stopping(waiting: _Waiting) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(_unavailable("the server is stopping"))
        waiting.done.exception()


def _unavailable(problem: str) -> ActionError:
    return ActionError(ErrorCode.UNAVAILABLE, problem, retry_after=_RETRY_AFTER_S)
