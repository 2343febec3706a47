"""Partitions with a batch that cannot be decoded: set aside for a while, then tried again.

The batch may be compressed with a codec whose library is missing, or be damaged. Its messages are
not the daemon's to skip, so the partition waits; the others are read.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from kafka import errors as kafka_errors

from monitor.backoff import Backoff
from monitor.bus.kafka_client import describe_codec
from monitor.bus.kafka_decoding import BatchTooLargeError
from monitor.log_limits import OutageLog

__all__ = ["PartitionsAside", "pending_error", "undecodable"]

logger = logging.getLogger("monitor.bus")

_RETRY_S = (1.0, 30.0)


def undecodable(client: Any, error: Exception) -> tuple[int, int] | None:
    """Return the partition and offset whose decoding raised ``error``, or None.

    What was fetched there is dropped: kafka-python would not finish it, and neither return nor
    raise.
    """
    names = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
    fetcher = client._fetcher
    fetched = getattr(fetcher, "_next_partition_records", None)
    if "_unpack_records" not in names or fetched is None:
        return None
    fetcher._next_partition_records = None
    fetcher._next_in_line_exception_metadata = None
    fetched.drain()
    return fetched.topic_partition.partition, fetched.next_fetch_offset


def pending_error(client: Any) -> Exception | None:
    """Return the error that the next poll would raise, after this one returned other messages.

    That poll might find another reason to skip the partition, and then not return.
    """
    waiting = getattr(client._fetcher, "_next_in_line_exception_metadata", None)
    error: Exception | None = getattr(waiting, "exception", None)
    return error


class PartitionsAside:
    """The partitions of ``topic`` that wait; ``trouble`` is called with why, or None.

    Times are in s, of a clock that does not go back.
    """

    def __init__(self, topic: str, trouble: Callable[[str | None], None]) -> None:
        self._topic = topic
        self._trouble = trouble
        self._waiting: dict[int, tuple[float, Backoff, OutageLog]] = {}
        self._tried: set[int] = set()

    def add(self, partition: int, offset: int, error: Exception, *, now: float) -> None:
        """Set a partition aside."""
        _, backoff, outage = self._waiting.get(
            partition, (0.0, Backoff(*_RETRY_S), self._outage(partition))
        )
        self._tried.discard(partition)
        self._waiting[partition] = (now + backoff.next_delay(), backoff, outage)
        outage.failed(f"cannot decode the batch at offset {offset}: {_describe(error)}")
        self._tell()

    def _outage(self, partition: int) -> OutageLog:
        subject = f"topic {self._topic}, partition {partition}"
        return OutageLog(logger, subject=subject, outcome="the other partitions are read")

    def due(self, now: float) -> list[int]:
        """Return the partitions to try again now."""
        due = [
            partition
            for partition, (at, _, _) in self._waiting.items()
            if at <= now and partition not in self._tried
        ]
        self._tried.update(due)
        return due

    def partitions(self) -> set[int]:
        """Return the partitions that are not read now."""
        return self._waiting.keys() - self._tried

    def read(self, partitions: Iterable[int]) -> None:
        """Note that messages of these partitions were decoded."""
        for partition in self._tried.intersection(partitions):
            _, _, outage = self._waiting.pop(partition)
            self._tried.discard(partition)
            outage.recovered("decoding works again")
            self._tell()

    def clear(self) -> None:
        """Forget all, for another client or assignment."""
        if self._waiting:
            self._waiting.clear()
            self._tried.clear()
            self._tell()

    def _tell(self) -> None:
        texts = [
            f"topic {self._topic}, partition {partition}: {outage.problem}"
            for partition, (_, _, outage) in sorted(self._waiting.items())
        ]
        self._trouble("; ".join(texts) or None)


def _describe(error: Exception) -> str:
    if isinstance(error, kafka_errors.UnsupportedCodecError):
        return describe_codec(str(error))
    if isinstance(error, BatchTooLargeError):
        return str(error.args[0])
    lines = str(error).splitlines()
    return f"{type(error).__name__}{': ' + lines[0][:200] if lines else ''}"
