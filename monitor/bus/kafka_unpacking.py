"""Decodes what was fetched from Kafka into records of the bus, in one pass.

kafka-python 3.0.12 makes three objects of each message, with a call for each number in it. That is
most of what reading costs. Another version may work differently inside: what is not decoded here
becomes records afterwards.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import Any

import kafka
from kafka import errors as kafka_errors
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

from monitor.bus.interface import Record
from monitor.bus.kafka_records import event_time, record_of, text_of

__all__ = ["decode_in_one_pass", "poll_records"]

logger = logging.getLogger("monitor.bus")


def decode_in_one_pass(consumer: Any) -> None:
    """Let a KafkaConsumer decode as this module does, if that works with its kafka-python."""
    try:
        fetcher = consumer._fetcher
        fetcher.PartitionRecords = _tried(type(fetcher).PartitionRecords)
    except Exception as error:  # noqa: BLE001 - whatever differs inside the library
        logger.debug(
            "kafka-python %s decodes messages itself, which takes longer: %s: %s",
            kafka.__version__,
            type(error).__name__,
            error,
        )


def poll_records(consumer: Any, **options: Any) -> list[Record]:
    """Return the messages that ``poll(**options)`` of a KafkaConsumer returns."""
    records: list[Record] = []
    for place, found in consumer.poll(**options).items():
        decoded = not found or isinstance(found[0], Record)
        records += found if decoded else [record_of(place, message) for message in found]
    return records


@functools.cache
def _tried(theirs: type) -> type:
    """Return the class that replaces kafka-python's class of the messages of a partition.

    Raises ValueError, or any other error, if it does not decode some messages to the same.
    """
    from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

    ours = type("_Records", (theirs,), {"_unpack_records": _unpack_records})
    builder = MemoryRecordsBuilder(
        magic=2,
        compression_type=0,
        batch_size=1000,
        transactional=True,
        producer_id=7,
        producer_epoch=0,
        base_sequence=0,
    )
    for key, value, headers in ((b"k", b"v", [("h", b"x" * 99), ("n", None)]), (None, None, [])):
        builder.append(1000, key, value, headers)
    builder.close()
    place = kafka.TopicPartition("topic", 0)
    found = []
    for kind in (ours, theirs):
        fetched = kind(
            0,
            place,
            MemoryRecords(bytes(builder.buffer())),
            isolation_level=IsolationLevel.READ_COMMITTED,
        )
        found.append(([*fetched.take()], fetched.next_fetch_offset))
    (records, position), (messages, wanted) = found
    if records != [record_of(place, message) for message in messages] or position != wanted:
        raise ValueError("its messages are decoded to something else here")
    return ours


# kafka_aside knows it by its name.
def _unpack_records(fetched: Any, place: Any, batches: Any, *_: Any) -> Iterator[Record]:
    """Yield the messages of one partition that one fetch returned; a method in kafka-python."""
    while (batch := batches.next_batch()) is not None:
        if not batch.validate_crc():
            raise _corrupt(batch.base_offset, "it failed its CRC check")
        if not isinstance(batch, DefaultRecordBatch):
            for message in batch:
                fetched.next_fetch_offset = message.offset + 1
                yield record_of(place, message)
            continue
        fetched.leader_epoch = batch.leader_epoch
        if _is_wanted(fetched, batch):
            for record in _decoded(place, batch):
                fetched.next_fetch_offset = record.offset + 1
                yield record
        # Compaction may have removed the last messages of the batch.
        fetched.next_fetch_offset = batch.next_offset
    fetched.drain()


def _is_wanted(fetched: Any, batch: Any) -> bool:
    """Return whether the batch has messages, and not of a transaction that was aborted."""
    if fetched.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
        fetched._consume_aborted_transactions_up_to(batch.last_offset)
        if fetched._contains_abort_marker(batch):
            fetched.aborted_producer_ids.discard(batch.producer_id)
        elif fetched._is_batch_aborted(batch):
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
                name = data[start:at].decode(errors="replace")
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
