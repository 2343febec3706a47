"""Consumes results from the bus and writes them to the database in batches.

Two tasks share a :class:`~monitor.aggregation.batch.Pending`: one polls the bus and parses
messages, the other writes batches. The offsets in the database decide what has been read; those
of the bus are a hint. When the two may differ (after a lost race, or after partitions were
assigned while the database was unavailable), everything pending is dropped and read again from
the stored offsets.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from monitor.aggregation.batch import Batch, Pending, parse_records
from monitor.aggregation.offsets import OffsetsMovedError, Place, stored_places
from monitor.aggregation.settings import AggregationSettings
from monitor.aggregation.statistics import Statistics
from monitor.aggregation.transactions import SlowWriteError, Transactions
from monitor.aggregation.writer import Prepared, Written
from monitor.backoff import Backoff
from monitor.bus import Assignment, Bus, Consumer
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.store import RETRY_S, Store
from monitor.yielding import in_slices, lower_priority

__all__ = ["Consuming"]

logger = logging.getLogger("monitor.aggregation")

_POLL_RECORDS = 2000
_POLL_S = 0.5
_PENDING_BYTES = 33_554_432
_OFFSETS_TIMEOUT_S = 3.0
_REVOKE_TIMEOUT_S = 8.0
_IDLE_INTERVAL_S = 30.0
_LAG_INTERVAL_S = 5.0
# Of flush_interval; the rest is for the transaction itself.
_FLUSH_EARLY = 0.9


class Consuming:
    """From the topic of the results to the tables, in step with the stored offsets.

    ``clock`` returns s since the epoch.
    """

    def __init__(
        self,
        settings: AggregationSettings,
        *,
        bus: Bus,
        store: Store,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._bus = bus
        self._store = store
        self._clock = clock
        self.statistics = Statistics(settings.topic)
        # Decodes, counts and encodes rows, so that the loop stays free.
        self._thread = ThreadPoolExecutor(1, "aggregation", initializer=lower_priority)
        self._transactions = Transactions(
            store,
            topic=self._topic,
            executor=self._thread,
            stored=lambda partition: self._stored[partition],
            topic_id=lambda: self._topic_id,
            written=self._written,
            clock=clock,
        )
        self._pending = Pending()
        # The batch being written. It stays here until its commit is certain.
        self._batch: Batch | None = None
        # The next batch, and what is being prepared of it in the meantime.
        self._ahead: tuple[Batch, asyncio.Future[Prepared]] | None = None
        self._writing = asyncio.Lock()
        # By assigned partition, the place in the database as far as this consumer knows.
        self._stored: dict[int, Place | None] = {}
        self._consumer: Consumer | None = None
        # Of the topic that the pending messages are from.
        self._topic_id: str | None = None
        self._in_step = False
        self._to_commit: dict[int, int] = {}
        # By partition, how many messages before the consumer's position are not written yet.
        self._unwritten: Counter[int] = Counter()
        self.outage = OutageLog(
            logger, outcome="consumption paused, trying again", level=logging.ERROR
        )
        self._changed = asyncio.Event()
        self.stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def partitions(self) -> list[int]:
        """The partitions that are assigned to this consumer."""
        return sorted(self._stored)

    @property
    def waiting(self) -> int:
        """How many messages have been read and wait for a batch."""
        return len(self._pending) + (0 if self._ahead is None else len(self._ahead[0]))

    def adopt(self, settings: AggregationSettings) -> None:
        """Take other settings from now on."""
        self._settings = settings
        self._changed.set()

    async def run(self) -> None:
        """Consume until cancelled, or until drained."""
        self._ended.clear()
        self._fall_out_of_step()
        self._stored.clear()
        self._consumer = consumer = self._bus.consumer(
            self._topic,
            group=self._settings.group,
            assignment=Assignment(assigned=self._assigned, revoked=self._revoked),
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._write(), name="aggregation:write")
                await self._consume(consumer)
                writing.cancel()
            await self._flush()
            await self._commit(consumer)
        finally:
            try:
                await consumer.close()
            finally:
                self._ended.set()

    async def drain(self) -> None:
        """Write all messages that have been read, and leave the group."""
        self.stopping.set()
        self._changed.set()
        await self._ended.wait()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)

    # Consuming

    async def _consume(self, consumer: Consumer) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(*RETRY_S)
        lag_at = idle_at = loop.time()
        while not self.stopping.is_set():
            if loop.time() >= idle_at + _IDLE_INTERVAL_S:
                idle_at = loop.time()
                await consumer.idle()
            if not self._in_step and consumer.assignment():
                if not await self._resynchronize(consumer):
                    await self._measure_lag(consumer)
                    await self._wait(backoff.next_delay())
                    continue
                backoff.reset()
            await self._commit(consumer)
            if loop.time() >= lag_at and consumer.assignment():
                lag_at = loop.time() + _LAG_INTERVAL_S
                await self._measure_lag(consumer)
            if self._full() or self._disturbs():
                await self._wait(_POLL_S)
                continue
            records = await consumer.poll(max_records=_POLL_RECORDS, timeout_s=_POLL_S)
            idle_at = loop.time()
            self._unwritten.update(record.partition for record in records)
            if not self._in_step:
                continue  # reading restarts at the stored offsets, so these come again
            if records:
                known = [record for record in records if record.partition in self._stored]
                # In a thread, so that the loop stays free.
                parse = functools.partial(
                    parse_records,
                    in_slices(known),
                    now=self._clock(),
                    keep_s=self._settings.keep_results,
                )
                entries = await loop.run_in_executor(self._thread, parse)
                if self._in_step:
                    self._pending.add(entries, clock=loop.time())
                    self._look_ahead()
                    self._changed.set()

    async def _measure_lag(self, consumer: Consumer) -> None:
        unread, unwritten = await consumer.lag(), self._unwritten
        self.statistics.lag = {
            partition: unread.get(partition, 0) + unwritten[partition]
            for partition in sorted({*unread, *(+unwritten)})
        }

    def _disturbs(self) -> bool:
        # SQLite releases the interpreter lock for each row. A thread that parses messages in the
        # meantime makes the transaction, and the wait of every other writer, several times longer.
        return self._writing.locked() and self._store.dialect == "sqlite"

    def _full(self) -> bool:
        ahead_bytes = 0 if self._ahead is None else self._ahead[0].size_bytes
        return (
            self.waiting >= self._settings.flush_messages
            or self._pending.size_bytes + ahead_bytes >= _PENDING_BYTES
        )

    async def _assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return where to continue reading the partitions that are now assigned."""
        # After a lost connection they may be the same as before, and be read again.
        if self._batch is not None or self.waiting:
            self._fall_out_of_step()
        elif not self._stored:
            self._in_step = True
        try:
            async with asyncio.timeout(_OFFSETS_TIMEOUT_S), self._writing:
                stored = await self._read_places()
                self._topic_id = self._consumer.topic_id() if self._consumer else None
        except (MonitorError, TimeoutError) as error:
            # The bus chooses where to start; its messages are ignored until the offsets are known.
            self._fall_out_of_step()
            self._failed(error)
            return {}
        for partition in partitions:
            self._stored[partition] = stored.get(partition)
            self._unwritten.pop(partition, None)
        logger.info("%s: assigned partitions %s", self._topic, sorted(self._stored))
        return {partition: self._start(stored.get(partition)) for partition in partitions}

    def _start(self, place: Place | None) -> int:
        return 0 if place is None else place.start(self._topic_id)

    async def _revoked(self, partitions: Sequence[int]) -> None:
        """Write what is pending of revoked partitions; their next consumer waits for it."""
        flushed = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REVOKE_TIMEOUT_S):
                flushed = await self._flush()
        if not flushed:
            self._fall_out_of_step()
        for partition in partitions:
            self._stored.pop(partition, None)
            self._unwritten.pop(partition, None)
            self._to_commit.pop(partition, None)
        logger.info("%s: revoked partitions %s", self._topic, sorted(partitions))

    async def _read_places(self) -> dict[int, Place]:
        return await self._store.read(
            functools.partial(stored_places, topic=self._topic), timeout=_OFFSETS_TIMEOUT_S
        )

    async def _resynchronize(self, consumer: Consumer) -> bool:
        """Continue reading at the stored offsets; False if the database is unavailable."""
        async with self._writing:
            try:
                stored = await self._read_places()
            except MonitorError as error:
                self._failed(error)
                return False
            self._pending.drop()
            self._batch = self._ahead = None
            self._unwritten.clear()
            self._topic_id = consumer.topic_id()
            partitions = consumer.assignment()
            self._stored = {partition: stored.get(partition) for partition in partitions}
            for partition in partitions:
                await consumer.seek(partition, self._start(stored.get(partition)))
            self._in_step = True
            self._recovered()
        return True

    async def _commit(self, consumer: Consumer) -> None:
        """Commit the database's offsets to the bus, for tools that show the group's lag."""
        offsets, self._to_commit = self._to_commit, {}
        offsets = {key: value for key, value in offsets.items() if key in consumer.assignment()}
        if offsets:
            try:
                await consumer.commit(offsets)
            except MonitorError as error:
                logger.debug("offsets are stored, but committing them to the bus failed: %s", error)

    async def _wait(self, limit_s: float | None) -> None:
        """Wait until something changes, at most ``limit_s`` if there is a limit."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._changed.wait()

    # Writing

    async def _write(self) -> None:
        backoff = Backoff(*RETRY_S)
        while True:
            await self._until_due()
            if await self._flush():
                backoff.reset()
                continue
            await asyncio.sleep(backoff.next_delay())

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while self._batch is None and not self._full():
            since = self._pending.since
            due = None if since is None else since + self._settings.flush_interval * _FLUSH_EARLY
            if due is not None and due <= loop.time():
                return
            await self._wait(None if due is None else due - loop.time())

    async def _flush(self) -> bool:
        """Write everything pending, batch by batch; False if the database is unavailable."""
        async with self._writing:
            while self._in_step and (self._batch is not None or self.waiting):
                prepared = None
                if self._batch is None:
                    limit = self._transactions.limit(self._settings)
                    if self._ahead is None:
                        self._batch = self._pending.take(limit)
                    else:
                        (self._batch, prepared), self._ahead = self._ahead, None
                    self._look_ahead()
                    self._changed.set()
                try:
                    await self._transactions.write(self._batch, self._settings, prepared)
                except OffsetsMovedError as error:
                    logger.warning("%s; continuing from the stored offsets", error)
                    self.statistics.lost_races += 1
                    self._fall_out_of_step()
                    return True
                except SlowWriteError as error:
                    self._failed(error)
                    self._fall_out_of_step()
                    return False
                except MonitorError as error:
                    self._failed(error)
                    return False
                self._batch = None
                self._recovered()
        self._changed.set()
        return True

    def _look_ahead(self) -> None:
        """Prepare the next batch if it is full, while the database writes this one.

        With SQLite that would slow down the transaction; see :meth:`_disturbs`.
        """
        if self._batch is None or self._ahead is not None or self._store.dialect == "sqlite":
            return
        limit = self._transactions.limit(self._settings)
        if len(self._pending) >= limit:
            batch = self._pending.take(limit)
            self._ahead = batch, self._transactions.prepare(batch, self._settings)

    def _written(self, batch: Batch, written: Written, took_s: float) -> None:
        self._stored.update(batch.next_places(self._topic_id))
        self._to_commit.update(batch.next_offsets)
        self._unwritten.subtract(entry.partition for entry in batch.entries)
        self.statistics.committed(written, messages=len(batch), took_s=took_s)

    def _fall_out_of_step(self) -> None:
        self._in_step = False
        self._batch = self._ahead = None
        self._pending.drop()
        self._changed.set()

    def _failed(self, error: MonitorError | TimeoutError) -> None:
        self.outage.failed(str(error) or "the database is slow", cause=error)

    def _recovered(self) -> None:
        self.outage.recovered("consumption resumed: the database is available again")
