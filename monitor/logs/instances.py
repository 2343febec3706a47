"""The live tail across instances that share a PostgreSQL.

It publishes the commits of other instances, and own commits whose outcome this instance did not
receive. Each commit is announced with its block of ids, on a channel that PostgreSQL delivers in
the order of commits. Blocks are allocated before the commit, so their numbers are not in this
order. After a lost connection, the missed commits are those of recent blocks not seen before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from typing import Final

from monitor.backoff import Backoff
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.logs.service import LogService
from monitor.logs.tables import CHANNEL, entries_of_block, entries_since_block, last_block
from monitor.store import RETRY_S, Store

__all__ = ["Instances"]

logger = logging.getLogger("monitor.logs")

# Blocks that may commit out of order, across a lost connection.
_REMEMBERED: Final = 1024
_READ_TIMEOUT_S: Final = 10.0
_CATCH_UP_ENTRIES: Final = 20_000


class Instances:
    """Listens for commits, and publishes their entries here if they are not yet published."""

    def __init__(self, service: LogService, store: Store) -> None:
        self._service = service
        self._store = store
        self._outage = OutageLog(logger)
        self._seen: OrderedDict[int, None] = OrderedDict()
        # The last block allocated before this instance listened; None until then.
        self._base: int | None = None
        self.began = asyncio.Event()
        service.on_own_block = self._first

    @property
    def listening(self) -> bool:
        """Whether it receives commits of other instances."""
        return self._base is not None

    async def run(self) -> None:
        """Listen until cancelled; does nothing on SQLite, which has one instance."""
        if self._store.dialect != "postgresql":
            return
        async with contextlib.aclosing(self._store.listen(CHANNEL)) as payloads:
            async for payload in payloads:
                try:
                    if payload is not None:
                        await self._read(payload)
                        continue
                except MonitorError as error:
                    self._failed(error)
                await self._until_caught_up()

    async def _until_caught_up(self) -> None:
        backoff = Backoff(*RETRY_S)
        while True:
            try:
                await self._catch_up()
            except MonitorError as error:
                self._failed(error)
                await asyncio.sleep(backoff.next_delay())
            else:
                self._outage.recovered("the live tail has the entries of other instances again")
                return

    def _failed(self, error: MonitorError) -> None:
        problem = f"the live tail lacks entries of other instances: {error}"
        self._outage.failed(problem, cause=error)

    async def _read(self, payload: str) -> None:
        instance, _, text = payload.partition(" ")
        if not text.isdecimal():
            return
        block = int(text)
        if instance == self._service.instance:
            # An own commit is published when it returns. But its connection may be lost before
            # that; then this notification is the only news of it.
            await self._service.committer.settled()
        if not self._first(block) or not len(self._service.tail):
            return
        try:
            entries = await self._store.read(
                lambda connection: entries_of_block(connection, block), timeout=_READ_TIMEOUT_S
            )
        except MonitorError:
            del self._seen[block]
            raise
        self._service.publish(entries)

    async def _catch_up(self) -> None:
        """Publish the commits of the time without notifications."""
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
            # An own commit may return before or after this read.
            if self._first(block):
                self._service.publish(entries)

    def _first(self, block: int) -> bool:
        """Remember a block; False if it was published before."""
        if block in self._seen:
            return False
        self._seen[block] = None
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True
