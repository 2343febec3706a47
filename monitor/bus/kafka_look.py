"""A look at topics of Kafka; see :mod:`monitor.bus.look`. Blocks."""

# ruff: noqa: D102 - look.py documents the methods

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from monitor.bus.extents import (
    ConsumerGroup,
    ConsumerPlace,
    Page,
    PartitionExtent,
    TopicExtent,
    UnknownTopicError,
)
from monitor.bus.interface import Record
from monitor.bus.kafka_client import FAILURES, ClientOptions, describe, make_client, reach
from monitor.bus.kafka_topics import admin_client
from monitor.bus.kafka_unpacking import decode_in_one_pass, poll_records
from monitor.bus.settings import KafkaSettings
from monitor.errors import UnavailableError

__all__ = ["KafkaLook"]

_LIMIT_S = 10.0
_REQUEST_MS = 5000
_POLL_MS = 500
# States of a group without a member.
_IDLE = ("Empty", "Dead")
# Of all messages of an answer.
_MOST_BYTES = 8_388_608


class KafkaLook:
    """Opens a client for each look."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings

    def topics(self) -> list[TopicExtent]:
        with self._client() as client:
            places = [
                TopicPartition(topic, partition)
                for topic in client.topics()
                if not topic.startswith("__")
                for partition in client.partitions_for_topic(topic) or ()
            ]
            extents = _extents(client, places)
        found: dict[str, list[PartitionExtent]] = {}
        for place, extent in extents.items():
            found.setdefault(place.topic, []).append(extent)
        return [
            TopicExtent(name=name, partitions=sorted(each, key=lambda one: one.partition))
            for name, each in found.items()
        ]

    def consumers(self) -> list[ConsumerGroup]:
        until = time.monotonic() + _LIMIT_S
        places: dict[tuple[str, str], dict[TopicPartition, int]] = {}
        active: dict[str, bool | None] = {}
        with self._failures(), admin_client(self._settings, ClientOptions(self._settings)) as admin:
            for group in admin.list_groups():
                name = group["group_id"]
                state = group.get("group_state")
                active[name] = state not in _IDLE if state else None
                # One at a time: earlier brokers answer no request for several.
                for place, offset in admin.list_group_offsets({name: None})[name].items():
                    if offset.offset >= 0:
                        places.setdefault((place.topic, name), {})[place] = offset.offset
                if time.monotonic() > until:
                    raise UnavailableError("kafka", "there are too many groups to look at")
        with self._client() as client:
            # A group may know topics that were deleted since.
            client.topics()
            known = [
                place
                for place in {each for found in places.values() for each in found}
                if place.partition in (client.partitions_for_topic(place.topic) or ())
            ]
            extents = _extents(client, known)
        return [
            _group(topic, name, active[name], found, extents)
            for (topic, name), found in places.items()
            if any(place in extents for place in found)
        ]

    def newest(self, topic: str, partition: int | None, limit: int) -> Page:
        with self._client() as client:
            extents = _extents(client, _places(client, topic, partition))
            starts = {
                place: max(extent.first_offset, extent.next_offset - limit)
                for place, extent in extents.items()
                if extent.next_offset > extent.first_offset
            }
            ends = {place: extents[place].next_offset for place in starts}
            records = _read(client, starts, ends, limit * max(1, len(starts)))
        records.sort(key=lambda record: (record.timestamp, record.partition, record.offset))
        return Page(records[-limit:], None)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Page:
        with self._client() as client:
            (place,) = _places(client, topic, partition)
            extent = _extents(client, [place])[place]
            start = max(offset, extent.first_offset)
            if start >= extent.next_offset:
                return Page([], None)
            records = _read(client, {place: start}, {place: extent.next_offset}, limit)
        after = records[-1].offset + 1 if records else extent.next_offset
        return Page(records, (partition, after) if after < extent.next_offset else None)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (UnknownTopicError, UnavailableError):
            raise
        except FAILURES as error:
            raise UnavailableError("kafka", describe(error, self._settings)) from None

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        with self._failures():
            reach(self._settings)
            client = make_client(
                KafkaConsumer,
                ClientOptions(self._settings),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level=self._settings.isolation_level,
                allow_auto_create_topics=False,
                fetch_max_bytes=_MOST_BYTES,
                metrics_enabled=False,
            )
            decode_in_one_pass(client)
            try:
                yield client
            finally:
                client.close(autocommit=False, timeout_ms=1000)


def _places(client: Any, topic: str, partition: int | None) -> list[TopicPartition]:
    known = client.partitions_for_topic(topic)
    if not known:
        raise UnknownTopicError(f"there is no topic {topic}")
    if partition is None:
        return [TopicPartition(topic, each) for each in sorted(known)]
    if partition not in known:
        raise UnknownTopicError(f"topic {topic} has no partition {partition}")
    return [TopicPartition(topic, partition)]


def _group(
    topic: str,
    name: str,
    active: bool | None,
    places: dict[TopicPartition, int],
    extents: dict[TopicPartition, PartitionExtent],
) -> ConsumerGroup:
    partitions = [
        ConsumerPlace(
            partition=place.partition,
            next_offset=offset,
            # What is deleted cannot be read any more.
            lag=max(0, extents[place].next_offset - max(offset, extents[place].first_offset)),
        )
        for place, offset in sorted(places.items())
        if place in extents
    ]
    lag = sum(each.lag for each in partitions)
    return ConsumerGroup(group=name, topic=topic, active=active, lag=lag, partitions=partitions)


def _extents(
    client: Any, places: Sequence[TopicPartition]
) -> dict[TopicPartition, PartitionExtent]:
    if not places:
        return {}
    first = client.beginning_offsets(places, timeout_ms=_REQUEST_MS)
    end = client.end_offsets(places, timeout_ms=_REQUEST_MS)
    return {
        place: PartitionExtent(
            partition=place.partition, first_offset=first[place], next_offset=end[place]
        )
        for place in places
    }


def _read(
    client: Any, starts: dict[TopicPartition, int], ends: dict[TopicPartition, int], limit: int
) -> list[Record]:
    """Read up to the ends, ``limit`` messages at most, without the markers of transactions."""
    records: list[Record] = []
    if not starts:
        return records
    client.assign(list(starts))
    for place, start in starts.items():
        client.seek(place, start)
    size = 0
    until = time.monotonic() + _LIMIT_S
    while len(records) < limit and size < _MOST_BYTES and time.monotonic() < until:
        found = poll_records(client, timeout_ms=_POLL_MS, max_records=limit - len(records))
        records += found
        size += sum(len(record.value) for record in found)
        if all(client.position(place, timeout_ms=1000) >= end for place, end in ends.items()):
            break
    return records
