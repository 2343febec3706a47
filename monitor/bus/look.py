"""A look at topics, for the API and the command line: what there is, and messages from an offset.

A look disturbs no consumer: it opens the spool, or a client of Kafka, of its own. It waits for
another one, and takes some seconds at most.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Protocol, TypeVar

from monitor.bus.extents import (
    ConsumerGroup,
    ConsumerPlace,
    Page,
    PartitionExtent,
    TopicExtent,
    UnknownTopicError,
)
from monitor.bus.settings import BusSettings, KafkaSettings
from monitor.bus.spool_file import UNREADABLE, SpoolFile
from monitor.errors import MissingPackageError, UnavailableError

__all__ = ["Look", "TopicLook"]

_LIMIT_S = 30.0
T = TypeVar("T")


class Look(Protocol):
    """Looks at the topics of Kafka or of the spool; blocks."""

    def topics(self) -> list[TopicExtent]:
        """Return all topics."""

    def consumers(self) -> list[ConsumerGroup]:
        """Return who reads which topic."""

    def newest(self, topic: str, partition: int | None, limit: int) -> Page:
        """Return the newest messages; without a partition, those of all by time."""

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Page:
        """Return messages from ``offset`` on."""


class TopicLook:
    """Looks at the topics of this config; methods raise UnknownTopicError and UnavailableError."""

    def __init__(self, bus: BusSettings, kafka: KafkaSettings | None) -> None:
        self._bus = bus
        self._kafka = kafka
        self._one = asyncio.Lock()

    async def topics(self) -> list[TopicExtent]:
        """Return all topics by name, without Kafka's internal ones."""
        found = await self._run(lambda look: look.topics())
        return sorted(found, key=lambda topic: topic.name)

    async def consumers(self) -> list[ConsumerGroup]:
        """Return the consumers with their lag, by topic and group."""
        found = await self._run(lambda look: look.consumers())
        return sorted(found, key=lambda each: (each.topic, each.group))

    async def messages(
        self, topic: str, *, partition: int | None, offset: int | None, limit: int
    ) -> Page:
        """Return messages from ``offset`` on, or the newest ones without an offset."""
        if offset is None:
            return await self._run(lambda look: look.newest(topic, partition, limit))
        start = offset
        return await self._run(lambda look: look.read(topic, partition or 0, start, limit))

    async def _run(self, work: Callable[[Look], T]) -> T:
        try:
            async with asyncio.timeout(_LIMIT_S), self._one:
                return await asyncio.to_thread(lambda: work(self._look()))
        except TimeoutError:
            raise UnavailableError("bus", "no answer in time") from None

    def _look(self) -> Look:
        if self._kafka is None:
            return _SpoolLook(self._bus)
        try:
            from monitor.bus.kafka_look import KafkaLook
        except ModuleNotFoundError as error:
            raise MissingPackageError("kafka", error.name or "kafka", "kafka-python") from None
        return KafkaLook(self._kafka)


class _SpoolLook:
    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings

    def topics(self) -> list[TopicExtent]:
        return self._in_file(
            lambda file: [
                TopicExtent(name=name, partitions=[_extent(file, name)]) for name in file.topics()
            ],
            or_else=[],
        )

    def consumers(self) -> list[ConsumerGroup]:
        def read(file: SpoolFile) -> list[ConsumerGroup]:
            found = []
            for topic, group, place in file.commits():
                lag = file.count(topic, place)
                partitions = [ConsumerPlace(partition=0, next_offset=place, lag=lag)]
                found.append(
                    ConsumerGroup(
                        group=group, topic=topic, active=None, lag=lag, partitions=partitions
                    )
                )
            return found

        return self._in_file(read, or_else=[])

    def newest(self, topic: str, partition: int | None, limit: int) -> Page:
        def read(file: SpoolFile) -> Page:
            _check(file, topic, partition or 0)
            return Page(file.newest(topic, limit), None)

        return self._in_file(read, or_else=None)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Page:
        def read(file: SpoolFile) -> Page:
            _check(file, topic, partition)
            records = file.read(topic, offset, limit)
            end = records[-1].offset + 1 if records else offset
            return Page(records, (0, end) if file.count(topic, end) else None)

        return self._in_file(read, or_else=None)

    def _in_file(self, work: Callable[[SpoolFile], T], *, or_else: T | None) -> T:
        path = self._settings.path()
        if not path.is_file():
            if or_else is None:
                raise UnknownTopicError("there is no spool yet")
            return or_else
        try:
            file = SpoolFile(path, max_bytes=self._settings.max_bytes)
        except UNREADABLE as error:
            raise UnavailableError("bus", f"cannot read the spool: {error}") from None
        try:
            return work(file)
        except sqlite3.Error as error:
            raise UnavailableError("bus", f"cannot read the spool: {error}") from None
        finally:
            file.close()


def _extent(file: SpoolFile, topic: str) -> PartitionExtent:
    first = file.read(topic, 0, 1)
    end = file.end()
    return PartitionExtent(
        partition=0, first_offset=first[0].offset if first else end, next_offset=end
    )


def _check(file: SpoolFile, topic: str, partition: int) -> None:
    if topic not in file.topics():
        raise UnknownTopicError(f"there is no topic {topic}")
    if partition != 0:
        raise UnknownTopicError(f"topic {topic} has no partition {partition}, only 0")
