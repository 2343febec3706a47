"""Forwards the messages of one topic from the spool to Kafka, in order, in its own thread.

It sends one window of messages at a time, waits for all acknowledgements, and deletes what is
acknowledged from the spool. The producer retries indefinitely, so an unavailable, slow or restarted
broker does not change the order. It is idempotent, so its retries do not duplicate messages. Only
the messages in flight when the daemon is killed are sent again, with the same ids.

A broker rejects messages whose time is more than an hour ahead of its own clock
(``message.timestamp.after.max.ms``; a topic may also limit times in the past). A wrong clock must
not stop the forwarding, so after such a rejection messages are sent without a timestamp for a
while. Their headers contain the time in any case.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from monitor.backoff import Backoff
from monitor.bus.interface import Record
from monitor.bus.kafka_client import (
    FAILURES,
    ClientOptions,
    TopicError,
    close_producer,
    make_client,
)
from monitor.bus.kafka_topics import ensure_topic
from monitor.bus.kafka_troubles import Troubles
from monitor.bus.settings import KafkaSettings
from monitor.bus.spool_file import UNREADABLE, SpoolFile
from monitor.bus.spool_opening import set_aside_if_damaged
from monitor.yielding import in_slices, lower_priority

__all__ = ["Lane"]

logger = logging.getLogger("monitor.bus")

_WINDOW = 2000
_LOOK_S = 5.0
# Without an acknowledgement for this long, the topic is looked at.
_AWAY_S = 5.0
_BACKOFF_S = (0.5, 10.0)
_STOP_S = 0.5
_STEP_S = 0.1
# How long messages are sent without timestamps after Kafka rejected one.
_UNTIMED_S = 60.0
_NO_TIME = -1
_TooLong = kafka_errors.MessageSizeTooLargeError


class Lane:
    """The thread of one topic; it reports problems to ``troubles``.

    ``refused`` is called with the number of messages that are too long for Kafka's clients.
    """

    def __init__(
        self,
        topic: str,
        settings: KafkaSettings,
        spool: Path,
        *,
        max_bytes: int,
        options: ClientOptions,
        troubles: Troubles,
        refused: Callable[[int], None],
    ) -> None:
        self._topic = topic
        self._settings = settings
        self._spool = spool
        self._max_bytes = max_bytes
        self._options = options
        self._troubles = troubles
        self._refused = refused
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._untimed_until = 0.0
        self._thread = threading.Thread(
            target=self._run, name=f"kafka-forwarder-{topic}"[:60], daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Report new messages of the topic; callable in any thread."""
        self._news.set()

    def stop(self) -> None:
        """Tell the thread to end; callable in any thread."""
        self._stopping.set()
        self._news.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        lower_priority()
        backoff = Backoff(*_BACKOFF_S)
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._session()
            except UNREADABLE as error:
                self._troubles.spool(self._topic, f"cannot read the spool: {error}")
            except FAILURES as error:
                self._troubles.failed(self._topic, error)
            except Exception as error:
                # The thread must survive any exception of the client library.
                logger.exception("forwarding the topic %s to Kafka failed", self._topic)
                self._troubles.failed(self._topic, error)
            if time.monotonic() - began > 60:
                backoff.reset()
            self._stopping.wait(backoff.next_delay())

    def _session(self) -> None:
        """Forward until :meth:`stop`; raises FAILURES and UNREADABLE."""
        file = SpoolFile(self._spool, max_bytes=self._max_bytes)
        producer: Any = None
        patience = 0.0
        try:
            ensure_topic(self._settings, self._options, self._topic)
            producer = self._producer()
            while not self._stopping.is_set():
                self._news.clear()
                records = file.read(self._topic, 0, _WINDOW)
                if not records:
                    self._troubles.recovered(self._topic)
                    self._news.wait(_LOOK_S)
                    continue
                self._send(producer, records, file)
            patience = _STOP_S
        except UNREADABLE as error:
            set_aside_if_damaged(file, error)
            raise
        finally:
            file.close()
            if producer is not None:
                # After a failure nothing more may be sent: it will be sent again.
                close_producer(producer, limit_s=patience)

    def _producer(self) -> Any:
        return make_client(
            KafkaProducer,
            self._options,
            acks="all",
            enable_idempotence=True,
            max_in_flight_requests_per_connection=5,
            linger_ms=5,
            batch_size=131_072,
            max_block_ms=5000,
            # In effect unlimited: see the module.
            delivery_timeout_ms=7 * 86_400_000,
            metadata_max_age_ms=30_000,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def _send(self, producer: Any, records: Sequence[Record], file: SpoolFile) -> None:
        futures: list[Any] = []
        failure: BaseException | None = None
        timed = time.monotonic() >= self._untimed_until
        for record in in_slices(records):
            try:
                futures.append(self._put(producer, record, timed=timed))
            except _TooLong as error:
                # Longer than 1 MiB: for the client, whatever the topic takes.
                self._drop(record, error)
                futures.append(None)
            except kafka_errors.KafkaError as error:
                failure = error
                break
        done: list[int] = []
        try:
            for record, future in zip(records, futures, strict=False):
                problem = None if future is None else self._wait(future)
                if isinstance(problem, _TooLong):
                    problem = self._over_the_limit(record)
                if problem is not None:
                    failure = failure or problem
                    continue
                done.append(record.offset)
        finally:
            file.delete(self._topic, done)
        if failure is None:
            self._troubles.recovered(self._topic)
        elif not self._stopping.is_set():
            if timed and _may_be_of_time(failure):
                self._untimed_until = time.monotonic() + _UNTIMED_S
            raise failure

    def _put(self, producer: Any, record: Record, *, timed: bool) -> Any:
        return producer.send(
            record.topic,
            value=record.value,
            key=None if record.key is None else record.key.encode(),
            headers=[(name, text.encode()) for name, text in record.headers.items()],
            timestamp_ms=int(record.timestamp * 1000) if timed else _NO_TIME,
        )

    def _drop(self, record: Record, problem: BaseException) -> None:
        logger.error(
            "dropping message %d of %s, which is too long for Kafka: %s",
            record.offset,
            record.topic,
            problem,
        )
        self._refused(1)

    def _over_the_limit(self, record: Record) -> TopicError:
        # The producer has sent it alone, and Kafka's own limit is above the client's.
        return TopicError(
            self._topic,
            f"it takes no message of {len(record.value)} bytes; raise its max.message.bytes",
        )

    def _wait(self, future: Any) -> Exception | None:
        """Wait for an acknowledgement; return the error, or None."""
        look_at = time.monotonic() + _AWAY_S
        while not future.is_done:
            if self._stopping.is_set():
                # The last messages may still be acknowledged.
                return self._result(future, _STOP_S)
            if time.monotonic() > look_at:
                self._look()
                look_at = time.monotonic() + _AWAY_S
            with contextlib.suppress(kafka_errors.KafkaError):
                future.get(timeout=_STEP_S)
        return self._result(future, _STEP_S)

    def _result(self, future: Any, timeout_s: float) -> Exception | None:
        try:
            future.get(timeout=timeout_s)
        except kafka_errors.KafkaError as error:
            problem: Exception = error
            return problem
        return None

    def _look(self) -> None:
        """Find out why Kafka acknowledges nothing, and create a topic that was deleted.

        Raises FAILURES if the messages have to be sent again by another producer.
        """
        try:
            created = ensure_topic(self._settings, self._options, self._topic)
        except kafka_errors.KafkaTimeoutError as error:
            # Kafka is unavailable, and the producer continues once it is back.
            self._troubles.failed(self._topic, error)
            return
        if created:
            raise kafka_errors.UnknownTopicOrPartitionError("it was deleted, and is created again")
        self._troubles.failed(
            self._topic, kafka_errors.NotEnoughReplicasError("no acknowledgement")
        )


def _may_be_of_time(error: BaseException) -> bool:
    """Return whether Kafka may have rejected the time of this message, or of another in its batch.

    There are other reasons for these errors; sending without timestamps then has no effect.
    """
    return isinstance(
        error, kafka_errors.InvalidTimestampError | kafka_errors.InvalidRecordError
    ) or "part of a batch which had" in str(error)
