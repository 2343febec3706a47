"""Forwards the spool to Kafka in order, and deletes acknowledged messages from it.

It sends one window of messages at a time and waits for all acknowledgements. The producer retries
indefinitely, so an unavailable, slow or restarted broker does not change the order. It is
idempotent, so its retries do not duplicate messages. Only the messages in flight when the daemon
is killed are sent again, with the same ids.

A broker rejects messages whose time is more than an hour ahead of its own clock
(``message.timestamp.after.max.ms``; a topic may also limit times in the past). A wrong clock must
not stop the forwarding, so after such a rejection messages are sent without a timestamp for a
while. Their headers contain the time in any case.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from monitor.backoff import Backoff
from monitor.bus.interface import Record
from monitor.bus.kafka_client import client_options, describe, ensure_topics, reach
from monitor.bus.settings import KafkaSettings
from monitor.bus.spool_file import UNREADABLE, SpoolFile
from monitor.bus.spool_lock import GroupLock
from monitor.bus.spool_opening import set_aside_if_damaged
from monitor.log_limits import OutageLog
from monitor.yielding import in_slices, lower_priority

__all__ = ["Forwarder"]

logger = logging.getLogger("monitor.bus")

_WINDOW = 2000
_LOOK_S = 0.5
# Without an acknowledgement for this long, Kafka is reported as unavailable.
_AWAY_S = 5.0
_BACKOFF_S = (0.5, 10.0)
_STOP_S = 0.5
_STEP_S = 0.1
# How long messages are sent without timestamps after Kafka rejected one.
_UNTIMED_S = 60.0
_NO_TIME = -1
# Errors of the message itself, which a retry cannot fix.
_REFUSED = (kafka_errors.MessageSizeTooLargeError, kafka_errors.InvalidTopicError)


class Forwarder:
    """The thread that forwards; :attr:`outage` has what is wrong with Kafka or the spool."""

    def __init__(
        self,
        settings: KafkaSettings,
        spool: Path,
        *,
        max_bytes: int,
        refused: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._max_bytes = max_bytes
        # Called with the number of messages that Kafka rejected permanently.
        self._refused = refused
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._thread: threading.Thread | None = None
        self._ensured: set[str] = set()
        self._untimed_until = 0.0
        self.outage = OutageLog(logger, outcome="messages wait in the spool")

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="kafka-forwarder", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Report new messages in the spool; callable in any thread."""
        self._news.set()

    def stop(self, timeout_s: float) -> None:
        """Stop; unacknowledged messages stay in the spool. Blocks up to ``timeout_s``."""
        self._stopping.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        lower_priority()
        lock = GroupLock(self._spool, "", "forwarder")
        backoff = Backoff(*_BACKOFF_S)
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                try:
                    if lock.acquire():
                        self._session()
                except UNREADABLE as error:
                    self.outage.failed(f"cannot read the spool: {error}")
                except (kafka_errors.KafkaError, OSError, ValueError, AssertionError) as error:
                    self.outage.failed(describe(error, self._settings))
                except Exception as error:
                    # The thread must survive any exception of the client library.
                    logger.exception("forwarding to Kafka failed")
                    self.outage.failed(f"forwarding to Kafka failed: {type(error).__name__}")
                if time.monotonic() - began > 60:
                    backoff.reset()
                self._stopping.wait(backoff.next_delay())
        finally:
            lock.release()

    def _session(self) -> None:
        """Forward until :meth:`stop`; raises KafkaError and sqlite3.Error."""
        file = SpoolFile(self._spool, max_bytes=self._max_bytes)
        producer = None
        try:
            reach(self._settings)
            producer = KafkaProducer(
                **client_options(self._settings),
                acks="all",
                enable_idempotence=True,
                max_in_flight_requests_per_connection=5,
                linger_ms=5,
                batch_size=131_072,
                max_block_ms=5000,
                # In effect unlimited: see the module.
                delivery_timeout_ms=7 * 86_400_000,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
            if self.outage.problem is not None and not file.count():
                self.outage.recovered("forwarding to Kafka resumed")
            while not self._stopping.is_set():
                self._news.clear()
                records = file.read(None, 0, _WINDOW)
                if not records:
                    self._news.wait(_LOOK_S)
                    continue
                self._ensure({record.topic for record in records})
                self._send(producer, records, file)
        except UNREADABLE as error:
            set_aside_if_damaged(file, error)
            raise
        finally:
            file.close()
            if producer is not None:
                producer.close(timeout=_STOP_S)

    def _ensure(self, topics: set[str]) -> None:
        unknown = topics - self._ensured
        if unknown:
            there = ensure_topics(self._settings, unknown)
            self._ensured |= there
            if unknown - there:
                names = ", ".join(sorted(unknown - there))
                raise kafka_errors.UnknownTopicOrPartitionError(
                    f"missing topics: {names}; create_topics is off"
                )

    def _send(self, producer: Any, records: list[Record], file: SpoolFile) -> None:
        futures = []
        failure: BaseException | None = None
        timed = time.monotonic() >= self._untimed_until
        for record in in_slices(records):
            try:
                futures.append(
                    producer.send(
                        record.topic,
                        value=record.value,
                        key=None if record.key is None else record.key.encode(),
                        headers=[(name, text.encode()) for name, text in record.headers.items()],
                        timestamp_ms=int(record.timestamp * 1000) if timed else _NO_TIME,
                    )
                )
            except _REFUSED as error:
                futures.append(error)
            except kafka_errors.KafkaError as error:
                failure = error
                break
        done = 0
        for record, future in zip(records, futures, strict=False):
            problem = future if isinstance(future, Exception) else self._wait(future)
            if isinstance(problem, _REFUSED):
                logger.error(
                    "dropping message %d of %s: Kafka rejected it permanently: %s",
                    record.offset,
                    record.topic,
                    problem,
                )
                self._refused(1)
            elif problem is not None:
                failure = problem
                break
            done += 1
        if done:
            file.delete_range(records[0].offset, records[done - 1].offset)
            self.outage.recovered("forwarding to Kafka resumed")
        if failure is not None and not self._stopping.is_set():
            self._ensured.clear()
            if timed and _may_be_of_time(failure):
                self._untimed_until = time.monotonic() + _UNTIMED_S
            raise failure

    def _wait(self, future: Any) -> Any:
        """Wait for an acknowledgement; return the error, or None."""
        away_at = time.monotonic() + _AWAY_S
        while not future.is_done:
            if self._stopping.is_set():
                # The last messages may still be acknowledged.
                try:
                    future.get(timeout=_STOP_S)
                except kafka_errors.KafkaError as error:
                    return error
                break
            if time.monotonic() > away_at:
                servers = ", ".join(self._settings.bootstrap_servers)
                self.outage.failed(f"Kafka at {servers} does not acknowledge messages")
            try:
                future.get(timeout=_STEP_S)
            except kafka_errors.KafkaTimeoutError:
                continue
            except kafka_errors.KafkaError as error:
                return error
        problem: BaseException | None = future.exception if future.failed() else None
        return problem


def _may_be_of_time(error: BaseException) -> bool:
    """Return whether Kafka may have rejected the time of this message, or of another in its batch.

    There are other reasons for these errors; sending without timestamps then has no effect.
    """
    return isinstance(
        error, kafka_errors.InvalidTimestampError | kafka_errors.InvalidRecordError
    ) or "part of a batch which had" in str(error)
