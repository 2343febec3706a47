"""The live tail across instances: what others committed to the same PostgreSQL, and what this
one committed without learning of it.

Each commit is announced by its block of ids, on a channel that the database delivers in the
order of commits. Blocks are taken before commits, so their own order says nothing: what was
missed while the connection was away is found as the recent blocks that were never seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from typing import Final

from monitor.errors import MonitorError
from monitor.log_limits import RateLimitedLog
from monitor.logs.service import LogService
from monitor.logs.tables import CHANNEL, entries_of_block, entries_since_block, last_block
from monitor.store import Store

__all__ = ["Instances"]

logger = logging.getLogger("monitor.logs")

# Blocks that may commit out of their order, across a loss of the connection.
_REMEMBERED: Final = 1024
_READ_TIMEOUT_S: Final = 10.0
_CATCH_UP_ENTRIES: Final = 20_000


class Instances:
    """Listens for commits, and publishes here the entries of those that are not yet."""

    def __init__(self, service: LogService, store: Store) -> None:
        self._service = service
        self._store = store
        self._log = RateLimitedLog(logger)
        self._seen: OrderedDict[int, None] = OrderedDict()
        # Blocks up to here were taken before we listened; None until then.
        self._base: int | None = None
        self.began = asyncio.Event()
        service.on_own_block = self._first

    @property
    def listening(self) -> bool:
        """Whether it has begun to hear of others' commits."""
        return self._base is not None

    async def run(self) -> None:
        """Listen until cancelled; SQLite has one instance, and nothing to listen to."""
        if self._store.dialect != "postgresql":
            return
        async with contextlib.aclosing(self._store.listen(CHANNEL)) as payloads:
            async for payload in payloads:
                try:
                    if payload is None:
                        await self._catch_up()
                    else:
                        await self._read(payload)
                except MonitorError as error:
                    self._log.warning("live", "others' entries are not shown live: %s", error)

    async def _read(self, payload: str) -> None:
        instance, _, text = payload.partition(" ")
        if not text.isdecimal():
            return
        block = int(text)
        if instance == self._service.instance:
            # Published when its commit is answered, which comes by another connection: one that
            # may be cut in between, and then this is all that tells of it.
            await self._service.committer.settled()
        if not self._first(block):
            return
        if not len(self._service.tail):
            return
        entries = await self._store.read(
            lambda connection: entries_of_block(connection, block), timeout=_READ_TIMEOUT_S
        )
        self._service.publish(entries)

    async def _catch_up(self) -> None:
        """Publish what was committed while nobody told us."""
        if self._base is None:
            self._base = await self._store.read(last_block, timeout=_READ_TIMEOUT_S)
            self.began.set()
            return
        since = max(self._base + 1, max(self._seen, default=0) - _REMEMBERED // 2)
        seen = tuple(self._seen)
        found = await self._store.read(
            lambda connection: entries_since_block(
                connection, since, seen=seen, limit=_CATCH_UP_ENTRIES
            ),
            timeout=_READ_TIMEOUT_S,
        )
        for block, entries in found.items():
            # While this was read, a commit of our own may have been told of first, or it may
            # be told of only after this.
            if self._first(block):
                self._service.publish(entries)

    def _first(self, block: int) -> bool:
        """Remember a block; False where it was published already."""
        if block in self._seen:
            return False
        self._seen[block] = None
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True
