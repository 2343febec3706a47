"""Writes batches in short transactions, without the messages that the database rejects."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from monitor.aggregation.batch import Batch, Entry, Rejected
from monitor.aggregation.offsets import Place
from monitor.aggregation.refusals import RefusedError
from monitor.aggregation.settings import AggregationSettings
from monitor.aggregation.writer import Prepared, Written, prepare, write_batch
from monitor.errors import MonitorError
from monitor.messages import encode
from monitor.store import Store
from monitor.validation import one_line

__all__ = ["SlowWriteError", "Transactions"]

# Most messages in one transaction. On SQLite all other writers wait for it; for PostgreSQL its
# rows are in memory several times.
_LARGEST = {"sqlite": 500, "postgresql": 20_000}
_SQLITE_TARGET_S = 0.02
_LEAST_SQLITE = 100
_TIMEOUT_S = 30.0


class SlowWriteError(MonitorError):
    """Writing a batch took too long: its messages are to be read again, in smaller batches."""


class Transactions:
    """Writes batches and chooses the size of the next one.

    ``executor`` prepares batches. ``stored`` returns the last known stored place of a partition,
    ``topic_id`` the id of the topic that is being read.
    ``written`` is called with each committed batch, what became of its messages, and the duration
    of the transaction (s). ``clock`` returns s since the epoch.
    """

    def __init__(
        self,
        store: Store,
        *,
        topic: str,
        executor: Executor,
        stored: Callable[[int], Place | None],
        topic_id: Callable[[], str | None],
        written: Callable[[Batch, Written, float], None],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._topic = topic
        self._executor = executor
        self._stored = stored
        self._topic_id = topic_id
        self._written = written
        self._clock = clock
        # How fast SQLite is here is not known yet.
        self._limit = _LEAST_SQLITE if store.dialect == "sqlite" else _LARGEST[store.dialect]

    def limit(self, settings: AggregationSettings) -> int:
        """Return the most messages that the next batch may have."""
        return min(self._limit, settings.flush_messages, _LARGEST[self._store.dialect])

    def prepare(self, batch: Batch, settings: AggregationSettings) -> asyncio.Future[Prepared]:
        """Begin to compute all that :meth:`write` needs and does not need the database for."""
        function = functools.partial(
            prepare,
            batch,
            settings.granularities,
            self._store.dialect,
            oldest=self._clock() - settings.keep_results,
            measures=settings.measures(),
        )
        return asyncio.get_running_loop().run_in_executor(self._executor, function)

    async def write(
        self,
        batch: Batch,
        settings: AggregationSettings,
        prepared: asyncio.Future[Prepared] | None = None,
    ) -> None:
        """Write a batch, which :meth:`prepare` may have prepared.

        Raises OffsetsMovedError, SlowWriteError, and MonitorError if the database is unavailable.
        """
        begun = time.monotonic()
        try:
            took_s = await self._write(batch, settings, prepared)
        except MonitorError as error:
            if time.monotonic() - begun < _TIMEOUT_S * 0.9:
                raise
            self._limit = max(self._limit // 2, 1)
            slow = SlowWriteError(str(error))
            slow.logged = error.logged
            raise slow from None
        self._limit = self._next_limit(self.limit(settings), len(batch), took_s)

    def _next_limit(self, limit: int, written: int, took_s: float) -> int:
        """Return the most messages of the next batch, after one that took ``took_s``."""
        most = limit * 2
        if self._store.dialect != "sqlite":
            return most
        if took_s <= _SQLITE_TARGET_S and written < limit // 2:
            return limit  # it says little of a larger one
        # Doubled, the one after the first that is nearly too long would be far too long.
        return max(min(int(limit * _SQLITE_TARGET_S / took_s), most), _LEAST_SQLITE)

    async def _write(
        self,
        batch: Batch,
        settings: AggregationSettings,
        prepared: asyncio.Future[Prepared] | None = None,
    ) -> float:
        """Write a batch and return the duration of its longest transaction (s)."""
        expected: Mapping[int, Place | None] = {
            partition: self._stored(partition) for partition in batch.next_offsets
        }
        ready = await (prepared or self.prepare(batch, settings))
        function = functools.partial(
            write_batch,
            prepared=ready,
            topic=self._topic,
            topic_id=self._topic_id(),
            expected=expected,
            now=self._clock(),
        )
        try:
            written, took_s = await self._store.timed(function, timeout=_TIMEOUT_S)
        except RefusedError as error:
            # The database rejects a message that passed validation. Find it, and write the others.
            if len(batch) > 1:
                return max([await self._write(half, settings) for half in batch.halves()])
            (entry,) = batch.entries
            if isinstance(entry.content, Rejected):
                raise
            rejected = Rejected(
                one_line(f"refused-by-database: {error}"),
                encode(entry.content),
            )
            refused = Entry(entry.partition, entry.offset, rejected, entry.size_bytes)
            return await self._write(Batch([refused]), settings)
        self._written(batch, written, took_s)
        return took_s
