"""Consumers of Kafka: each has its own client in its own thread."""

# ruff: noqa: D102 - interface.py documents the methods

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from monitor.backoff import Backoff
from monitor.bus.interface import Assignment, Consumer, Record
from monitor.bus.kafka_client import FAILURES, describe
from monitor.bus.kafka_reader import KafkaTopicReader
from monitor.bus.settings import KafkaSettings
from monitor.errors import UnavailableError
from monitor.log_limits import OutageLog
from monitor.yielding import lower_priority

__all__ = ["TopicConsumer"]

logger = logging.getLogger("monitor.bus")

T = TypeVar("T")

_BACKOFF_S = (0.5, 10.0)
_SLICE_S = 0.5
_CALLBACK_S = 10.0


class TopicConsumer(Consumer):
    """Reads one topic of Kafka; see :class:`Consumer`.

    ``expired`` is called with the number of messages that Kafka deleted before they were read, and
    ``trouble`` with what is wrong with Kafka or the topic, or None after it recovered.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        *,
        group: str | None,
        assignment: Assignment | None,
        expired: Callable[[int], None],
        trouble: Callable[[str | None], None],
        since: float | None = None,
        configs: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._group = group
        self._callbacks = assignment
        self._tell = trouble
        self._thread = ThreadPoolExecutor(1, f"kafka-{topic}", initializer=lower_priority)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader = KafkaTopicReader(
            settings,
            topic,
            group=group,
            rebalances=self,
            expired=expired,
            trouble=self._set_partition_trouble,
            since=since,
            configs=configs,
        )
        self._callback_error: BaseException | None = None
        self._in_callback = False
        self._backoff = Backoff(*_BACKOFF_S)
        self._outage = OutageLog(logger, subject=f"consumer of {topic}")
        self._partition_trouble: str | None = None
        self._closed = False

    # On the loop

    async def poll(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[Record]:
        self._loop = loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            left = until - loop.time()
            try:
                records = await self._run(
                    self._reader.poll, max_records, max(0.0, min(left, _SLICE_S))
                )
                self._outage.recovered("Kafka is available again")
                self._backoff.reset()
                self._tell(self._partition_trouble)
            except FAILURES as error:
                await self._fail(error)
                records = []
            self._raise_of_callback()
            if records or loop.time() >= until:
                return records

    async def idle(self) -> None:
        """Stay in the group: a member that does not poll for max_poll_interval_ms is removed."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._run(self._reader.idle)
        except FAILURES as error:
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
        await self._run(self._reader.close)
        await asyncio.sleep(self._backoff.next_delay())

    def _set_partition_trouble(self, trouble: str | None) -> None:
        self._partition_trouble = trouble

    async def seek(self, partition: int, offset: int, *, again: int = 0) -> None:
        try:
            await self._run(self._reader.seek, partition, offset, again)
        except FAILURES as error:
            raise UnavailableError("kafka", describe(error, self._settings)) from None

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit the next offsets to the group; does nothing while ``revoked`` runs."""
        if self._group is None or self._in_callback:
            return
        try:
            await self._run(self._reader.commit, offsets)
        except FAILURES as error:
            raise UnavailableError("kafka", describe(error, self._settings)) from None

    def assignment(self) -> frozenset[int]:
        return self._reader.partitions

    def topic_id(self) -> str | None:
        return self._reader.topic_id

    async def lag(self) -> Mapping[int, int]:
        """Return the number of unread messages, of the partitions whose end is known."""
        try:
            return await self._run(self._reader.lag)
        except FAILURES:
            return {}

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = self._reader.stopping = True
        await self._run(self._reader.close)
        self._tell(None)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    # In the thread: see Rebalances

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return where to start."""
        if self._callbacks is None:
            return {}
        return self._call_back(self._callbacks.assigned, partitions) or {}

    def revoked(self, partitions: Sequence[int]) -> None:
        """Let the user of the consumer finish its messages."""
        if self._callbacks is not None and self._callbacks.revoked is not None:
            self._call_back(self._callbacks.revoked, partitions)

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
