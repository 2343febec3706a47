"""A topic of Kafka without the spool: messages are sent at once, and read by everybody.

For messages that their sender keeps anyway, and whose readers should not wait for a disk. The
sender waits for each window's acknowledgement and sends a window that failed again, so readers must
recognise messages that they have.
"""

# ruff: noqa: D102 - interface.py documents the methods

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from monitor.bus.interface import Assignment, Consumer, DirectTopic
from monitor.bus.kafka_client import (
    FAILURES,
    ClientOptions,
    close_producer,
    describe,
    make_client,
)
from monitor.bus.kafka_consumer import TopicConsumer
from monitor.bus.kafka_topics import ensure_topic
from monitor.bus.settings import KafkaSettings
from monitor.errors import UnavailableError
from monitor.yielding import in_slices

__all__ = ["KafkaTopic"]

logger = logging.getLogger("monitor.bus")

_ACKNOWLEDGED_S = 10.0
_CLOSE_S = 0.5
_NO_TIME = -1
# How long messages are sent without a time after Kafka rejected one.
_UNTIMED_S = 60.0
# An error of the message itself, which a retry cannot fix.
_TooLong = kafka_errors.MessageSizeTooLargeError


class KafkaTopic(DirectTopic):
    """One topic of Kafka.

    ``configs`` are Kafka's settings of the topic if it has to be created.
    """

    def __init__(self, settings: KafkaSettings, topic: str, *, configs: Mapping[str, str]) -> None:
        self._settings = settings
        self._topic = topic
        self._configs = configs
        self._options = ClientOptions(settings)
        self._thread = ThreadPoolExecutor(1, f"kafka-send-{topic}"[:60])
        self._producer: Any = None
        self._untimed_until = 0.0

    async def send(self, messages: Sequence[tuple[str | None, bytes]]) -> int:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._send, messages)

    def consumer(
        self,
        *,
        since: float,
        assignment: Assignment,
        trouble: Callable[[str | None], None],
    ) -> Consumer:
        return TopicConsumer(
            self._settings,
            self._topic,
            group=None,
            assignment=assignment,
            expired=lambda _: None,
            trouble=trouble,
            since=since,
            configs=self._configs,
        )

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await asyncio.to_thread(close_producer, producer, limit_s=_CLOSE_S)
        self._thread.shutdown(wait=False)

    # In the thread

    def _send(self, messages: Sequence[tuple[str | None, bytes]]) -> int:
        try:
            if self._producer is None:
                ensure_topic(self._settings, self._options, self._topic, configs=self._configs)
                self._producer = self._connect()
            return self._deliver(messages)
        except FAILURES as error:
            producer, self._producer = self._producer, None
            if producer is not None:
                # Nothing more may be sent: it will be sent again.
                close_producer(producer)
            raise UnavailableError("kafka", describe(error, self._settings)) from None

    def _connect(self) -> Any:
        return make_client(
            KafkaProducer,
            self._options,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_block_ms=5000,
            delivery_timeout_ms=int(_ACKNOWLEDGED_S * 1000),
            metadata_max_age_ms=30_000,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def _deliver(self, messages: Sequence[tuple[str | None, bytes]]) -> int:
        timed = time.monotonic() >= self._untimed_until
        refused = 0
        futures = []
        for key, value in in_slices(messages):
            try:
                futures.append(
                    self._producer.send(
                        self._topic,
                        value=value,
                        key=None if key is None else key.encode(),
                        timestamp_ms=None if timed else _NO_TIME,
                    )
                )
            except _TooLong as error:
                logger.error("dropping a message for %s: %s", self._topic, error)
                refused += 1
        until = time.monotonic() + _ACKNOWLEDGED_S
        for future in futures:
            try:
                future.get(timeout=max(0.1, until - time.monotonic()))
            except _TooLong as error:
                logger.error("dropping a message for %s: %s", self._topic, error)
                refused += 1
            except (kafka_errors.InvalidTimestampError, kafka_errors.InvalidRecordError):
                self._untimed_until = time.monotonic() + _UNTIMED_S
                raise
        return refused
