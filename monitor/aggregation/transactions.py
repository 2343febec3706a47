"""Batches on their way into the database: as large as it takes in good time, and without what
it refuses."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from monitor.aggregation.batch import Batch, Entry, Rejected
from monitor.aggregation.intake import printable
from monitor.aggregation.settings import AggregationSettings
from monitor.aggregation.writer import OffsetsMovedError, Written, prepare, write_batch
from monitor.errors import MonitorError
from monitor.messages import encode
from monitor.store import Store

__all__ = ["TooSlowError", "Transactions"]

# Messages of one transaction. On SQLite everyone else's writes wait for it; on PostgreSQL its
# rows are in memory several times over.
_LARGEST = {"sqlite": 500, "postgresql": 10_000}
_SQLITE_TARGET_S = 0.03
_LEAST_SQLITE = 100
_TIMEOUT_S = 30.0


class TooSlowError(MonitorError):
    """A batch was too much for the database: it is to be read again in smaller pieces."""


class Transactions:
    """Writes batches, and knows how large the next should be.

    ``executor`` prepares them. ``offset`` gives what is known to be stored of a partition;
    ``written`` is called with each piece that is committed, what it was, and how long that took
    (s). ``clock`` gives s since the epoch.
    """

    def __init__(
        self,
        store: Store,
        *,
        topic: str,
        executor: Executor,
        offset: Callable[[int], int | None],
        written: Callable[[Batch, Written, float], None],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._topic = topic
        self._executor = executor
        self._offset = offset
        self._written = written
        self._clock = clock
        self._limit = _LARGEST[store.dialect]

    def limit(self, settings: AggregationSettings) -> int:
        """Return how many messages the next batch may have."""
        return min(self._limit, settings.flush_messages, _LARGEST[self._store.dialect])

    async def write(self, batch: Batch, settings: AggregationSettings) -> None:
        """Write a batch; raises OffsetsMovedError, and MonitorError where the database is away."""
        begun = time.monotonic()
        try:
            took_s = await self._write(batch, settings)
        except MonitorError as error:
            if time.monotonic() - begun < _TIMEOUT_S * 0.9:
                raise
            self._limit = max(self._limit // 2, 1)
            raise TooSlowError(str(error)) from None
        # Let batches grow again, on SQLite as far as others need not wait long for them.
        limit = self.limit(settings)
        if self._store.dialect == "sqlite" and took_s > _SQLITE_TARGET_S:
            self._limit = max(int(limit * _SQLITE_TARGET_S / took_s), _LEAST_SQLITE)
        else:
            self._limit = limit * 2

    async def _write(self, batch: Batch, settings: AggregationSettings) -> float:
        """Write a batch, and return how long its longest transaction took (s)."""
        expected: Mapping[int, int | None] = {
            partition: self._offset(partition) for partition in batch.next_offsets
        }
        ready = functools.partial(
            prepare,
            batch,
            settings.granularities,
            self._store.dialect,
            oldest=self._clock() - settings.keep_results,
        )
        prepared = await asyncio.get_running_loop().run_in_executor(self._executor, ready)
        function = functools.partial(
            write_batch, prepared=prepared, topic=self._topic, expected=expected, now=self._clock()
        )
        try:
            written, took_s = await self._store.timed(function, timeout=_TIMEOUT_S)
        except (MonitorError, OffsetsMovedError):
            raise
        except Exception as error:
            # The database refuses something in here that looked right. Find it, keep the rest.
            if len(batch) > 1:
                return max([await self._write(half, settings) for half in batch.halves()])
            (entry,) = batch.entries
            if isinstance(entry.content, Rejected):
                raise
            rejected = Rejected(
                printable(f"refused-by-database: {str(error).splitlines()[0]}"),
                encode(entry.content),
            )
            refused = Entry(entry.partition, entry.offset, rejected, entry.size_bytes)
            return await self._write(Batch([refused]), settings)
        self._written(batch, written, took_s)
        return took_s
