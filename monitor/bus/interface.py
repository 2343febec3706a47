"""The bus as its users see it: publish, consume, commit, whatever is behind it.

Everything published lands in the **spool** first, a SQLite file that is committed in groups
several times a second. Without Kafka the spool is the whole bus: each topic in it has one
partition, 0, and consumers read it by offset. With Kafka the spool is the outbox: a forwarder
sends it on in order, and consumers read from Kafka.

Who trims what:

- With Kafka, the forwarder deletes from the spool what Kafka has acknowledged; how long Kafka
  keeps it is Kafka's affair. Commits of consumers never touch the spool.
- Without Kafka, a message goes once every group that ever committed on its topic has
  committed an offset past it; the newest 1000 of a topic stay in any case, to be looked at.
- In both cases, when the file would outgrow ``bus.max_bytes``, the oldest go, whoever still
  needs them; those that nobody had read or acknowledged are counted as dropped.

Offsets of a topic only ever increase, and may have gaps. A new spool starts far above any
older one's offsets (they start from the clock, in microseconds), so an offset stored for
a spool that was deleted since leads to the first message of the new one, never past it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from monitor.part import Metric, State
from monitor.sqlite.file import OpenFile

__all__ = ["Assignment", "Bus", "Consumer", "Record"]


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message as a consumer gets it. ``timestamp`` is when it was published, in epoch s."""

    topic: str
    partition: int
    offset: int
    key: str | None
    headers: Mapping[str, str]
    value: bytes
    timestamp: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a consumer does when partitions come and go; both run on the loop.

    ``assigned`` is given the partitions that are now this consumer's and returns the offset
    to read next for those that it knows better than the bus (the store's); the others start
    at the group's committed offset, or at the earliest message. ``revoked`` is given the
    partitions that are going, while they still are this consumer's, to finish what it holds
    of them; records of theirs are not delivered after it.
    """

    assigned: Callable[[Sequence[int]], Awaitable[Mapping[int, int]]]
    revoked: Callable[[Sequence[int]], Awaitable[None]] | None = None


class Consumer(ABC):
    """Reads one topic as a member of a group; used from one task."""

    @abstractmethod
    async def poll(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[Record]:
        """Return the next records, in order within a partition; an empty list after ``timeout_s``.

        Rebalances happen in here, and so do the calls of Assignment's functions. A bus that is
        away gives empty lists meanwhile, and says so in the bus's state; an exception out of
        ``assigned`` or ``revoked`` is raised here.
        """

    @abstractmethod
    async def idle(self) -> None:
        """Stay in the group while no records are wanted; to be called every minute or so.

        Whoever polls need not call it. Rebalances may happen in here as in :meth:`poll`.
        """

    @abstractmethod
    async def seek(self, partition: int, offset: int) -> None:
        """Read ``offset`` next; one that is trimmed away leads to the earliest there is."""

    @abstractmethod
    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Say by partition which offset the group reads next: the last one processed plus 1.

        Raises UnavailableError where it could not be said; nothing is lost by that, as it is
        repeated by the next commit.
        """

    @abstractmethod
    def assignment(self) -> frozenset[int]:
        """Return the partitions that are this consumer's now."""

    @abstractmethod
    async def lag(self) -> Mapping[int, int]:
        """Return by assigned partition how many messages are still to be read."""

    @abstractmethod
    async def close(self) -> None:
        """Leave the group and let go of everything; bounded in time, may be called twice."""


class Bus(ABC):
    """Topics to publish to and to consume from."""

    @abstractmethod
    async def start(self) -> None:
        """Open the spool and start the bus's threads.

        Raises SettingError where the spool's file can't be used. Kafka being away is no error.
        """

    @abstractmethod
    def publish(
        self, topic: str, *, value: bytes, key: str | None = None, headers: Mapping[str, str]
    ) -> int:
        """Take a message and return its ticket; never blocks, from any thread.

        The message is on disk within half a second, and its ticket can be awaited with
        :meth:`committed`. What waits for the disk is bounded: where the disk is full or too
        slow the oldest that wait are dropped and counted.
        """

    @abstractmethod
    async def committed(self, *tickets: int, timeout_s: float = 10.0) -> bool:
        """Wait until these messages are on disk, or all published so far where none is named.

        Returns False where one of them was dropped or ``timeout_s`` went by.
        """

    @abstractmethod
    def consumer(
        self, topic: str, *, group: str | None, assignment: Assignment | None = None
    ) -> Consumer:
        """Return a consumer of ``topic``.

        Without a group it reads all partitions from the earliest message, for itself alone,
        and its commits do nothing.
        """

    @abstractmethod
    def state(self) -> State:
        """Return how the bus fares: degraded while Kafka is away or the disk takes nothing."""

    @abstractmethod
    def metrics(self) -> Iterable[Metric]:
        """Return the bus's metrics: published, spooled and dropped messages."""

    def open_files(self) -> Sequence[OpenFile]:
        """Return the SQLite files that must stay at their paths."""
        return ()

    @abstractmethod
    async def close(self) -> None:
        """Write what waits, stop the threads; bounded in time, may be called twice."""
