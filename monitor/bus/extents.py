"""What a look at topics finds; see :mod:`monitor.bus.look`."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from monitor.bus.interface import Record
from monitor.errors import MonitorError

__all__ = [
    "ConsumerGroup",
    "ConsumerPlace",
    "Page",
    "PartitionExtent",
    "TopicExtent",
    "UnknownTopicError",
]


class PartitionExtent(msgspec.Struct, frozen=True, kw_only=True):
    """A partition: the offset of its first message, and that of the message that comes next."""

    partition: int
    first_offset: int
    next_offset: int


class TopicExtent(msgspec.Struct, frozen=True, kw_only=True):
    """A topic and its partitions."""

    name: str
    partitions: list[PartitionExtent]


class ConsumerPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The offset that a consumer reads next in a partition, and how many messages are left."""

    partition: int
    next_offset: int
    lag: int


class ConsumerGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Who reads a topic, and how far it is behind.

    ``active`` is whether somebody reads it now; it is null if the bus does not know that.
    """

    group: str
    topic: str
    active: bool | None
    lag: int
    partitions: list[ConsumerPlace]


class Page(NamedTuple):
    """Messages in order, and the place after them (partition, offset) if there are more."""

    records: list[Record]
    more: tuple[int, int] | None


class UnknownTopicError(MonitorError):
    """There is no such topic, or no such partition of it."""
