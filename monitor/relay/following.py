"""Reads ``relay.topic``: what other relays publish becomes part of this relay's channels.

At the start it reads back as far as a channel may last. It never commits: where it continues after
an outage of Kafka is in memory, like the histories.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from monitor.bus.interface import Assignment, DirectTopic, Record
from monitor.log_limits import RateLimitedLog
from monitor.relay.channel import Channel
from monitor.relay.publishing import HEARTBEAT_S
from monitor.relay.replicas import Again, Replicas
from monitor.relay.shared_channels import SharedChannels
from monitor.relay.topic_records import BrokersRecord, ChannelRecord, decode_record

__all__ = ["Following"]

logger = logging.getLogger("monitor.relay")

# A relay that says nothing for this long (s) is gone, and its brokers with it.
_SILENT_S = 3.5 * HEARTBEAT_S
# How long the start waits for an unavailable Kafka.
_PATIENCE_S = 10.0
_POLL_S = 1.0
_POLL_RECORDS = 200
# Records that are applied before the loop does something else.
_PIECE_RECORDS = 20
_RELAYS_KEPT = 1000


@dataclass(slots=True)
class _Relay:
    brokers: int
    # when it last said anything, in epoch s, and when that was read, on the clock of the channels
    at: float
    heard: float


class Following:
    """The reading side. All callbacks are called on the loop.

    ``changed`` is called with each channel that has news and how many bytes, ``applied`` after
    several; ``again`` with a channel's name and a message to publish as a new one;
    ``brokers_changed`` with the time (epoch s) when the number of the other relays' brokers
    changes, 0 if only what is known of it; ``marked`` with a channel of which a mark of this
    relay was read, and the mark's number; ``ready`` once, when everything was read or Kafka is
    unavailable for too long.
    """

    def __init__(
        self,
        topic: DirectTopic,
        channels: SharedChannels,
        *,
        changed: Callable[[Channel, int], None],
        applied: Callable[[], None],
        again: Callable[[bytes, Again], None],
        brokers_changed: Callable[[float], None],
        marked: Callable[[bytes, int], None],
        ready: Callable[[], None],
        clock: Callable[[], float],
        time: Callable[[], float],
    ) -> None:
        self._topic = topic
        self._channels = channels
        self._replicas = Replicas(channels)
        self._changed = changed
        self._applied = applied
        self._again = again
        self._brokers_changed = brokers_changed
        self._marked = marked
        self._ready = ready
        self._clock = clock
        self._time = time
        self._relays: dict[str, _Relay] = {}
        # By partition, what to read next in the topic of this id.
        self._next: dict[int, int] = {}
        self._topic_id: str | None = None
        self._faults_log = RateLimitedLog(logger)
        # What keeps it from reading.
        self.trouble: str | None = None
        self._caught_up = asyncio.Event()
        self.is_ready = False
        self.received = 0
        self.rejected = 0
        self.lag = 0
        # s from another relay's broker to here, of the last message.
        self.delay_s = 0.0
        # When that came to its relay, in epoch s.
        self.latest_at = 0.0

    @property
    def brokers(self) -> int:
        """How many brokers the other relays have; none while that is not known."""
        if self.trouble is not None:
            return 0
        return sum(relay.brokers for relay in self._relays.values())

    @property
    def caught_up(self) -> bool:
        """Whether everything was read that the topic had at the start."""
        return self._caught_up.is_set()

    async def wait_caught_up(self) -> None:
        """Wait for that."""
        await self._caught_up.wait()

    async def run(self) -> None:
        """Read, until cancelled."""
        limits = self._channels.limits
        began = self._clock()
        consumer = self._topic.consumer(
            since=max(self._time() - limits.keep_idle - limits.keep_finished, 0.0),
            assignment=Assignment(assigned=self._places),
            trouble=self._troubled,
        )
        self._consumer_topic_id = consumer.topic_id
        try:
            while True:
                records = await consumer.poll(max_records=_POLL_RECORDS, timeout_s=_POLL_S)
                await self._apply(records)
                if not self.caught_up:
                    lag = await consumer.lag()
                    self.lag = sum(lag.values())
                    if lag.keys() == consumer.assignment() != frozenset() and not self.lag:
                        self._catch_up()
                    elif self.trouble is not None and self._clock() - began > _PATIENCE_S:
                        self._begin("serving without what other relays published")
                elif len(records) < _POLL_RECORDS:
                    self.lag = 0
                    self._judge_silence()
                else:
                    self.lag = sum((await consumer.lag()).values())
        finally:
            await consumer.close()

    async def _places(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return where to continue in partitions that were read before."""
        topic_id = self._consumer_topic_id()
        if topic_id != self._topic_id:
            self._topic_id = topic_id
            self._next.clear()
        return {each: self._next[each] for each in partitions if each in self._next}

    def _troubled(self, trouble: str | None) -> None:
        if (trouble is None) is (self.trouble is None):
            self.trouble = trouble
            return
        self.trouble = trouble
        now = self._clock()
        for relay in self._relays.values():
            # What they said meanwhile is still to be read.
            relay.heard = now
        self._brokers_changed(0.0)

    def _catch_up(self) -> None:
        self._caught_up.set()
        self._channels.put_in_order()
        for relay in self._relays.values():
            relay.heard = self._clock()
        logger.info("relay.topic: read %d messages of other relays", self.received)
        self._begin("")

    def _begin(self, problem: str) -> None:
        if not self.is_ready:
            self.is_ready = True
            if problem:
                logger.warning("relay.topic: %s; %s", self.trouble, problem)
            self._ready()

    async def _apply(self, records: Sequence[Record]) -> None:
        for number, record in enumerate(records, 1):
            try:
                found = decode_record(record.key, record.value)
            except ValueError as problem:
                self.rejected += 1
                self._faults_log.warning(
                    "record",
                    "relay.topic: dropped message %d of partition %d: %s",
                    record.offset,
                    record.partition,
                    problem,
                )
            else:
                if isinstance(found, BrokersRecord):
                    if found.relay != self._channels.run:
                        self._hear(found)
                else:
                    self._take(str(record.key).encode(), found)
            self._next[record.partition] = record.offset + 1
            if number % _PIECE_RECORDS == 0:
                self._applied()
                await asyncio.sleep(0)
        if records:
            self._applied()

    def _take(self, name: bytes, record: ChannelRecord) -> None:
        now, channels = self._clock(), self._channels
        if record.is_mark:
            if record.relay == channels.run:
                self._marked(name, record.seq)
            return
        if record.at:
            self.latest_at = record.at[-1]
            relay = self._relays.get(record.relay)
            if relay is not None:
                relay.at, relay.heard = max(relay.at, self.latest_at), now
            delay = max(self._time() - self.latest_at, 0.0)
            if self.caught_up:
                self.delay_s = delay
            else:
                now -= delay
        taken = self._replicas.take(name, record, now)
        if record.relay != channels.run:
            self.received += len(record.data)
        size = sum(len(bytes(text)) for text in record.data)
        for channel in taken.changed:
            self._changed(channel, size)
        for message in taken.again:
            self._again(name, message)
        if not self.caught_up:
            channels.forget_if_over(name, self._clock())

    def _hear(self, record: BrokersRecord) -> None:
        before = self.brokers
        relay = self._relays.pop(record.relay, None)
        if record.brokers:
            self._relays[record.relay] = _Relay(record.brokers, record.at, self._clock())
            if len(self._relays) > _RELAYS_KEPT:
                del self._relays[next(iter(self._relays))]
        if self.brokers != before:
            gone = relay is not None and not record.brokers
            self._brokers_changed(relay.at if gone and relay is not None else record.at)

    def _judge_silence(self) -> None:
        """Count out the relays that say nothing any more."""
        until = self._clock() - _SILENT_S
        if self.trouble is not None:
            return
        for name, relay in list(self._relays.items()):
            if relay.heard < until:
                del self._relays[name]
                logger.warning("relay.topic: a relay with brokers has gone silent")
                self._brokers_changed(relay.at)
