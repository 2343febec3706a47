"""The interface of the bus, with and without Kafka: publish, consume, commit.

All messages are written to the **spool** first, an SQLite file that is committed in groups
several times a second. Without Kafka the spool is the whole bus: each topic in it has one
partition, 0, and consumers read it by offset. With Kafka the spool is the outbox: a forwarder
sends its messages to Kafka in order, and consumers read from Kafka.

Messages are deleted as follows:

- With Kafka, the forwarder deletes messages from the spool once Kafka has acknowledged them.
  Kafka's own retention applies after that. Commits of consumers do not affect the spool.
- Without Kafka, a message is deleted once every group that ever committed on its topic has
  committed an offset past it. The newest 1000 messages of a topic are kept in any case, for
  inspection.
- In both cases, the oldest messages are deleted when the file would exceed ``bus.max_bytes``,
  even if they are still needed. Unread or unacknowledged ones are counted as dropped.

Offsets of a topic only increase, and may have gaps. The offsets of a new spool start at the
clock in microseconds, far above those of any older one. So an offset that was stored for a
deleted spool leads to the first message of the new one, never past it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from monitor.metrics import Metric
from monitor.part import State
from monitor.sqlite.file import OpenFile

__all__ = ["Assignment", "Bus", "Consumer", "DirectTopic", "Record"]


class Record(msgspec.Struct, frozen=True, gc=False):
    """A message as consumers receive it. ``timestamp`` is when it was published, epoch s."""

    topic: str
    partition: int
    offset: int
    key: str | None
    headers: Mapping[str, str]
    value: bytes
    timestamp: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Callbacks of a consumer for assigned and revoked partitions; both run on the loop.

    A consumer of Kafka without a group is assigned all partitions, again after each outage.

    ``assigned`` receives the newly assigned partitions. It returns the offsets to read next, for
    partitions whose offset is stored elsewhere (in the database); the others start at the
    committed offset of the group, or at the earliest message. ``revoked`` receives the partitions
    that are about to be revoked, to finish their pending messages. After it, no more of their
    records are delivered.
    """

    assigned: Callable[[Sequence[int]], Awaitable[Mapping[int, int]]]
    revoked: Callable[[Sequence[int]], Awaitable[None]] | None = None


class Consumer(ABC):
    """Reads one topic as a member of a group; used from one task."""

    @abstractmethod
    async def poll(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[Record]:
        """Return the next records, in order within a partition; an empty list after ``timeout_s``.

        Rebalances, and the callbacks of Assignment, run during this call. While the bus is
        unavailable it returns empty lists, and the state of the bus shows the reason. Raises the
        exceptions of ``assigned`` and ``revoked``.
        """

    @abstractmethod
    async def idle(self) -> None:
        """Stay in the group without polling; call it about every minute.

        It is not needed while :meth:`poll` is called. Rebalances may run in it, as in poll.
        """

    @abstractmethod
    async def seek(self, partition: int, offset: int, *, again: int = 0) -> None:
        """Read ``offset`` next, or the earliest message if that one is deleted.

        Where messages may be published twice, up to ``again`` messages before it come first, to
        recognize them. May raise UnavailableError.
        """

    @abstractmethod
    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Store, by partition, the offset that the group reads next: the last processed plus 1.

        Raises UnavailableError if that fails. Nothing is lost: the next commit includes it.
        """

    @abstractmethod
    def assignment(self) -> frozenset[int]:
        """Return the partitions that are currently assigned."""

    @abstractmethod
    def topic_id(self) -> str | None:
        """Return the id of the topic that the assigned partitions belong to; None if unknown.

        A topic that is deleted and created again has another id, and its offsets start over. An
        offset that is stored elsewhere is a place in the topic of this id only. If the topic is
        created again, ``revoked`` and ``assigned`` are called.
        """

    @abstractmethod
    async def lag(self) -> Mapping[int, int]:
        """Return the number of unread messages by assigned partition."""

    @abstractmethod
    async def close(self) -> None:
        """Leave the group and release everything; bounded in time, may be called twice."""


class DirectTopic(ABC):
    """A topic of Kafka without the spool: what is sent is there at once, or the sender knows."""

    @abstractmethod
    async def send(self, messages: Sequence[tuple[str | None, bytes]]) -> int:
        """Send messages (key and value) in order, and wait until Kafka has them; from one task.

        Returns how many Kafka refused for good. Raises UnavailableError if it may lack some: send
        them all again, and expect that readers get some twice.
        """

    @abstractmethod
    def consumer(
        self,
        *,
        since: float,
        assignment: Assignment,
        trouble: Callable[[str | None], None],
    ) -> Consumer:
        """Return a consumer of all partitions, from the time ``since`` (epoch s) on.

        ``assignment.assigned`` says where to continue in partitions that were read already.
        ``trouble`` is called with what keeps it from reading, or None.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release everything; bounded in time, may be called twice."""


class Bus(ABC):
    """Topics to publish to and to consume from."""

    @abstractmethod
    async def start(self) -> None:
        """Open the spool and start the bus's threads.

        Raises SettingError or MonitorError if the file of the spool cannot be used. An unavailable
        Kafka is not an error.
        """

    @abstractmethod
    def publish(
        self, topic: str, *, value: bytes, key: str | None = None, headers: Mapping[str, str]
    ) -> int:
        """Queue a message and return its ticket; never blocks; callable in any thread.

        The message is on disk within half a second; wait for that with its ticket and
        :meth:`committed`. The queue is bounded: if the disk is full or too slow, the oldest
        messages in it are dropped and counted.
        """

    @abstractmethod
    async def committed(self, *tickets: int, timeout_s: float = 10.0) -> bool:
        """Wait until these messages are on disk; without tickets, all published so far.

        Returns False if one of them was dropped or ``timeout_s`` expired.
        """

    @abstractmethod
    def consumer(
        self, topic: str, *, group: str | None, assignment: Assignment | None = None
    ) -> Consumer:
        """Return a consumer of ``topic``.

        Without a group it reads all partitions from the earliest message, independently of other
        consumers, and its commits do nothing.
        """

    @abstractmethod
    def state(self) -> State:
        """Return OK, or degraded while Kafka is unavailable or the disk cannot be written."""

    def troubles(self) -> Sequence[str]:
        """Return what keeps consumers from reading; empty if nothing does."""
        return ()

    @abstractmethod
    def metrics(self) -> Iterable[Metric]:
        """Return the bus's metrics: published, spooled and dropped messages."""

    def open_files(self) -> Sequence[OpenFile]:
        """Return the SQLite files that must stay at their paths."""
        return ()

    @abstractmethod
    async def close(self) -> None:
        """Write the queue, stop the threads; bounded in time, may be called twice."""
