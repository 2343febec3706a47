"""Consumers of Kafka: each has its own client in its own thread."""

# ruff: noqa: D102 - interface.py documents the methods

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import OffsetAndMetadata

from monitor.backoff import Backoff
from monitor.bus.interface import Assignment, Consumer, Record
from monitor.bus.kafka_client import client_options, describe, ensure_topics, reach
from monitor.bus.settings import KafkaSettings
from monitor.errors import UnavailableError
from monitor.log_limits import OutageLog
from monitor.yielding import lower_priority, yield_to_loop

__all__ = ["TopicConsumer"]

logger = logging.getLogger("monitor.bus")

T = TypeVar("T")

_BACKOFF_S = (0.5, 10.0)
_SLICE_S = 0.5
_CALLBACK_S = 10.0
_COMMIT_MS = 5000
_CLOSE_MS = 2000
# Records that the client decodes, in Python, before the loop gets a turn: about 2 ms.
_PIECE_RECORDS = 50
_SESSION_MS = 30_000
_HEARTBEAT_MS = 3000


class TopicConsumer(Consumer):
    """Reads one topic of Kafka; see :class:`Consumer`."""

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        *,
        group: str | None,
        assignment: Assignment | None,
        trouble: Callable[[str | None], None],
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._group = group
        self._callbacks = assignment
        # Called with what is wrong with Kafka, and with None after it recovered.
        self._tell = trouble
        self._thread = ThreadPoolExecutor(1, f"kafka-{topic}", initializer=lower_priority)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._partitions: frozenset[int] = frozenset()
        self._callback_error: BaseException | None = None
        # Counts rebalances: records from before the last one are dropped.
        self._changes = 0
        self._in_callback = False
        self._backoff = Backoff(*_BACKOFF_S)
        self._outage = OutageLog(logger, subject=f"consumer of {topic}")
        self._closed = False

    # On the loop

    async def poll(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[Record]:
        self._loop = loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            left = until - loop.time()
            try:
                records = await self._run(self._poll, max_records, max(0.0, min(left, _SLICE_S)))
                if self._client is not None:
                    self._outage.recovered("Kafka is available again")
                    self._backoff.reset()
                    self._tell(None)
            except (kafka_errors.KafkaError, OSError, ValueError, AssertionError) as error:
                await self._fail(error)
                records = []
            self._raise_of_callback()
            if records or loop.time() >= until:
                return records

    async def idle(self) -> None:
        """Stay in the group: a member that does not poll for max_poll_interval_ms is removed."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._run(self._idle)
        except (kafka_errors.KafkaError, OSError, ValueError, AssertionError) as error:
            await self._fail(error)
        self._raise_of_callback()

    def _raise_of_callback(self) -> None:
        failure, self._callback_error = self._callback_error, None
        if failure is not None:
            raise failure

    async def _fail(self, error: BaseException) -> None:
        problem = describe(error, self._settings)
        self._outage.failed(problem)
        self._tell(problem)
        await self._run(self._drop_client)
        await asyncio.sleep(self._backoff.next_delay())

    async def seek(self, partition: int, offset: int) -> None:

        def act() -> None:
            if self._client is not None:
                self._client.seek(TopicPartition(self._topic, partition), offset)

        await self._run(act)

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit the next offsets to the group; does nothing while ``revoked`` runs."""
        if self._group is None or self._in_callback:
            return

        def act() -> None:
            mine = {
                TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "", -1)
                for partition, offset in offsets.items()
                if partition in self._partitions
            }
            if self._client is not None and mine:
                self._client.commit(mine, timeout_ms=_COMMIT_MS)

        try:
            await self._run(act)
        except (kafka_errors.KafkaError, OSError, AssertionError) as error:
            raise UnavailableError("kafka", describe(error, self._settings)) from None

    def assignment(self) -> frozenset[int]:
        return self._partitions

    async def lag(self) -> Mapping[int, int]:
        """Return the number of unread messages, of the partitions whose end is known."""

        def act() -> dict[int, int]:
            lag = {}
            for partition in self._partitions:
                place = TopicPartition(self._topic, partition)
                end = self._client.highwater(place)
                if end is not None:
                    lag[partition] = max(
                        0, end - (self._client.position(place, timeout_ms=1000) or 0)
                    )
            return lag

        try:
            return await self._run(act) if self._client is not None else {}
        except (kafka_errors.KafkaError, OSError, AssertionError):
            return {}

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._run(self._drop_client)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    # In the thread

    def _poll(self, max_records: int, timeout_s: float) -> list[Record]:
        if self._client is None:
            self._connect()
        records: list[Record] = []
        wait_ms = round(timeout_s * 1000)
        while True:
            changes = self._changes
            limit = min(max_records - len(records), _PIECE_RECORDS)
            batches = self._client.poll(timeout_ms=wait_ms, max_records=limit)
            if self._changes != changes:
                # A rebalance: partitions that are assigned again are read again from their offset.
                records.clear()
            before = len(records)
            records += [_record(message) for batch in batches.values() for message in batch]
            if len(records) - before < limit or len(records) >= max_records or self._closed:
                return records
            wait_ms = 0
            yield_to_loop()

    def _idle(self) -> None:
        if self._client is None:
            return
        self._client.pause(*self._client.assignment())
        try:
            self._client.poll(timeout_ms=0)
        finally:
            # A rebalance during poll() may have changed the assignment.
            self._client.resume(*self._client.assignment())

    def _connect(self) -> None:
        reach(self._settings)
        if not ensure_topics(self._settings, {self._topic}):
            raise kafka_errors.UnknownTopicOrPartitionError(
                f"the topic {self._topic} does not exist, and create_topics is off"
            )
        client = KafkaConsumer(
            **client_options(self._settings),
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            max_poll_interval_ms=300_000,
            partition_assignment_strategy=(RangePartitionAssignor,),
            metrics_enabled=False,
        )
        self._client = client
        if self._group is not None:
            client.subscribe([self._topic], listener=_Listener(self))
            return
        partitions = sorted(client.partitions_for_topic(self._topic) or ())
        places = [TopicPartition(self._topic, partition) for partition in partitions]
        client.assign(places)
        client.seek_to_beginning(*places)
        self._partitions = frozenset(partitions)

    def assigned(self, partitions: Sequence[int]) -> None:
        self._changes += 1
        self._partitions = frozenset(partitions)
        if self._callbacks is None or not partitions:
            return
        known = self._call_back(self._callbacks.assigned, partitions)
        for partition, offset in (known or {}).items():
            if partition in self._partitions:
                self._client.seek(TopicPartition(self._topic, partition), offset)

    def revoked(self, partitions: Sequence[int]) -> None:
        self._changes += 1
        if self._callbacks is not None and self._callbacks.revoked is not None and partitions:
            self._call_back(self._callbacks.revoked, partitions)
        self._partitions = self._partitions - set(partitions)

    def _call_back(
        self, function: Callable[[Sequence[int]], Awaitable[T]], partitions: Sequence[int]
    ) -> T | None:
        """Run a callback of Assignment on the loop and wait for it in this thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return None

        async def call() -> T:
            return await function(partitions)

        self._in_callback = True
        future = asyncio.run_coroutine_threadsafe(call(), loop)
        try:
            return future.result(_CALLBACK_S)
        except BaseException as error:  # noqa: BLE001 - raised by poll(), on the loop
            future.cancel()
            self._callback_error = error
            return None
        finally:
            self._in_callback = False

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                client.close(autocommit=False, timeout_ms=_CLOSE_MS)
            except (kafka_errors.KafkaError, OSError, AssertionError) as error:
                logger.debug("consumer of %s: closing failed: %s", self._topic, error)
        self._partitions = frozenset()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, consumer: TopicConsumer) -> None:
        self._consumer = consumer

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._consumer.revoked(sorted(place.partition for place in revoked))

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._consumer.assigned(sorted(place.partition for place in assigned))


def _record(message: Any) -> Record:
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers}
    key = None if message.key is None else message.key.decode("utf-8", "replace")
    return Record(
        message.topic,
        message.partition,
        message.offset,
        key,
        headers,
        message.value or b"",
        _time(message.timestamp, headers),
    )


def _time(timestamp_ms: int | None, headers: Mapping[str, str]) -> float:
    """Return the time of a record in epoch s; without one that of its event, or 0."""
    if timestamp_ms is not None and timestamp_ms >= 0:
        return timestamp_ms / 1000
    try:
        return datetime.fromisoformat(headers["ce_time"]).timestamp()
    except (KeyError, ValueError):
        return 0.0
