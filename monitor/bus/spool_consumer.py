"""Consumers of the spool: each reads one topic in its own thread."""

# ruff: noqa: D102 - interface.py documents the methods

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from monitor.bus.interface import Assignment, Consumer, Record
from monitor.bus.spool_file import UNREADABLE, SpoolFile
from monitor.bus.spool_lock import GroupLock
from monitor.bus.spool_opening import set_aside_if_damaged
from monitor.bus.spool_shared import SharedReads
from monitor.errors import UnavailableError
from monitor.log_limits import OutageLog

__all__ = ["SpoolConsumer"]

logger = logging.getLogger("monitor.bus")

_RETRY_S = 1.0
# How often a consumer looks for messages of other processes, in s.
_LOOK_S = 0.5
_TOPIC_ID = "spool"
T = TypeVar("T")


class SpoolConsumer(Consumer):
    """Reads a topic of the spool in its own thread."""

    def __init__(
        self,
        spool: Path,
        topic: str,
        *,
        group: str | None,
        assignment: Assignment | None,
        max_bytes: int,
        news: set[asyncio.Event],
        shared: SharedReads,
    ) -> None:
        self._spool = spool
        self._max_bytes = max_bytes
        self._all_news = news
        self._shared = shared
        self._shared.join()
        self._topic = topic
        self._group = group
        self._callbacks = assignment
        self._lock = None if group is None else GroupLock(spool, topic, group)
        self._thread = ThreadPoolExecutor(1, f"spool-{topic}")
        self._file: SpoolFile | None = None
        self._position: int | None = None
        self._news = asyncio.Event()
        self._closed = False
        self._outage = OutageLog(logger)

    async def poll(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[Record]:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        self._all_news.add(self._news)
        while True:
            self._news.clear()
            if self._position is not None or await self._assign():
                records = await self._read(max_records)
                if records:
                    self._position = records[-1].offset + 1
                    return records
            left = until - loop.time()
            if left <= 0:
                return []
            try:
                async with asyncio.timeout(min(left, _LOOK_S)):
                    await self._news.wait()
            except TimeoutError:
                if left <= _LOOK_S:
                    return []  # the next poll reads at once

    async def idle(self) -> None:
        """Do nothing: the topic is assigned to this consumer until it releases the lock."""

    async def _read(self, limit: int) -> list[Record]:
        start = self._position or 0
        nothing: list[Record] = []
        return await self._in_thread(
            lambda file: self._shared.read(
                start, limit, lambda: file.read(self._topic, start, limit)
            ),
            or_else=nothing,
        )

    async def _assign(self) -> bool:
        if not await self._in_thread(self._may_read, or_else=False):
            return False
        known: Mapping[int, int] = {}
        if self._callbacks is not None:
            known = await self._callbacks.assigned([0])
        start = known.get(0)
        if start is None:
            start = await self._in_thread(
                lambda file: file.committed(self._topic, self._group or ""), or_else=None
            )
        await self.seek(0, start or 0)
        return True

    def _may_read(self, _: SpoolFile) -> bool:
        return self._lock is None or self._lock.acquire()

    async def seek(self, partition: int, offset: int, *, again: int = 0) -> None:
        del partition
        end = await self._in_thread(lambda file: file.end(), or_else=offset)
        # Past the end: the offset belongs to an older spool.
        position = 0 if offset > end else offset
        if again and position:
            position = await self._in_thread(
                lambda file: file.before(self._topic, position, again), or_else=position
            )
        self._position = position

    async def commit(self, offsets: Mapping[int, int]) -> None:
        if self._group is None or 0 not in offsets:
            return
        group = self._group
        try:
            await self._run(lambda file: file.commit(self._topic, group, offsets[0]))
        except UNREADABLE as error:
            raise UnavailableError("spool", f"cannot store the offset: {error}") from None

    def assignment(self) -> frozenset[int]:
        return frozenset() if self._position is None else frozenset([0])

    def topic_id(self) -> str | None:
        # The offsets of a new spool continue above those of the old one.
        return _TOPIC_ID

    async def lag(self) -> Mapping[int, int]:
        position = self._position
        if position is None:
            return {}
        count = await self._in_thread(lambda file: file.count(self._topic, position), or_else=0)
        return {0: count}

    async def _in_thread(self, work: Callable[[SpoolFile], T], *, or_else: T) -> T:
        try:
            result = await self._run(work)
        except (*UNREADABLE, OSError) as error:
            self._outage.failed(f"cannot read the spool {self._spool}: {error}")
            if self._file is not None:
                set_aside_if_damaged(self._file, error)
            await asyncio.sleep(_RETRY_S)
            return or_else
        self._outage.recovered(f"reading the spool {self._spool} again")
        return result

    async def _run(self, work: Callable[[SpoolFile], T]) -> T:
        def call() -> T:
            if self._file is None:
                self._file = SpoolFile(self._spool, max_bytes=self._max_bytes)
            return work(self._file)

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._all_news.discard(self._news)
        self._shared.leave()
        if self._position is not None and self._callbacks and self._callbacks.revoked:
            await self._callbacks.revoked([0])
        self._position = None
        if self._file is not None:
            file, self._file = self._file, None
            await asyncio.get_running_loop().run_in_executor(self._thread, file.close)
        if self._lock is not None:
            self._lock.release()
        self._thread.shutdown(wait=False)
