"""Decodes what was fetched from Kafka into records of the bus, in one pass.

kafka-python 3.0.12 makes three objects of each message, with a call for each number in it. That is
most of what reading costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka import errors as kafka_errors
from kafka.consumer.fetcher import Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

from monitor.bus.interface import Record
from monitor.bus.kafka_records import event_time, record_of, text_of

__all__ = ["return_records"]


def return_records(consumer: Any) -> None:
    """Let the poll() of a KafkaConsumer return :class:`Record`."""
    consumer._fetcher.PartitionRecords = _Records


class _Records(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The messages of one partition that one fetch returned."""

    # kafka_aside knows it by its name.
    def _unpack_records(self, place: Any, batches: Any, *_: Any) -> Iterator[Record]:
        while (batch := batches.next_batch()) is not None:
            if not batch.validate_crc():
                raise _corrupt(batch.base_offset, "it failed its CRC check")
            if not isinstance(batch, DefaultRecordBatch):
                for message in batch:
                    self.next_fetch_offset = message.offset + 1
                    yield record_of(place, message)
                continue
            self.leader_epoch = batch.leader_epoch
            if self._is_wanted(batch):
                for record in _decoded(place, batch):
                    self.next_fetch_offset = record.offset + 1
                    yield record
            # Compaction may have removed the last messages of the batch.
            self.next_fetch_offset = batch.next_offset
        self.drain()

    def _is_wanted(self, batch: Any) -> bool:
        """Return whether the batch has messages, and not of a transaction that was aborted."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return False
        return not batch.is_control_batch


def _decoded(place: Any, batch: Any) -> Iterator[Record]:
    """Yield the messages of a batch: see KIP-98 for their format.

    Most lengths take one byte and are read here: a call costs several times as much.
    """
    batch._maybe_uncompress()
    data = bytes(batch._buffer)
    at = batch._pos
    topic, partition = place
    base_offset, base_ms = batch.base_offset, batch.first_timestamp
    appended_ms = batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None
    try:
        for _ in range(batch.records_count):
            size, at = decode_varint(data, at)
            end = at + size
            # After a byte of attributes, none of which is defined.
            delta_ms, at = decode_varint(data, at + 1)
            delta, at = decode_varint(data, at)
            size, at = decode_varint(data, at)
            key = None
            if size >= 0:
                key = text_of(data[at : at + size])
                at += size
            size, at = decode_varint(data, at)
            value = b""
            if size > 0:
                value = data[at : at + size]
                at += size
            count, at = decode_varint(data, at)
            headers = {}
            for _ in range(count):
                size, start = data[at], at + 1
                if size & 0x81:
                    size, start = decode_varint(data, at)
                    at = start + size
                else:
                    at = start + (size >> 1)
                name = data[start:at].decode()
                size, start = data[at], at + 1
                if size & 0x81:
                    size, start = decode_varint(data, at)
                    at = start + size if size > 0 else start
                else:
                    at = start + (size >> 1)
                headers[name] = text_of(data[start:at])
            if at != end:
                raise ValueError("a message has another size than it says")
            ms = base_ms + delta_ms if appended_ms is None else appended_ms
            time = ms / 1000 if ms >= 0 else event_time(headers)
            yield Record(topic, partition, base_offset + delta, key, headers, value, time)
        if at != len(data):
            raise ValueError("it has bytes after its messages")
    except (ValueError, IndexError) as error:
        raise _corrupt(base_offset, str(error)) from error


def _corrupt(offset: int, problem: str) -> kafka_errors.CorruptRecordError:
    return kafka_errors.CorruptRecordError(f"the batch at offset {offset}: {problem}")
