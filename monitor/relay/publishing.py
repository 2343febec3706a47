"""Publishes what this relay's brokers send to ``relay.topic``, for the other relays.

There is no queue: what is not published yet is in the histories, so while Kafka is unavailable
no more is kept than without a topic. Messages that come while Kafka takes others go out
together, one record a channel.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from monitor.backoff import Backoff
from monitor.bus.interface import DirectTopic
from monitor.errors import UnavailableError
from monitor.log_limits import OutageLog, RateLimitedLog
from monitor.relay.channel import Channel
from monitor.relay.shared_channels import SharedChannels
from monitor.relay.topic_records import brokers_record, channel_record, mark_record

__all__ = ["HEARTBEAT_S", "Publishing"]

logger = logging.getLogger("monitor.relay")

# s between two notices of how many brokers there are.
HEARTBEAT_S = 2.0
# One record, well below the megabyte that Kafka takes; and one window.
_RECORD_BYTES = 262_144
_WINDOW_BYTES = 1_048_576
_WINDOW_CHANNELS = 200
# Of channels that are forgotten here before they were published.
_LEAVING_BYTES = 16 * 1024 * 1024
_LEAVING = 10_000
_BACKOFF_S = (0.5, 5.0)


class Publishing:
    """Sends what is new in the channels of this relay; :meth:`wake` says that there is something.

    ``brokers`` returns how many brokers this relay has.
    """

    def __init__(
        self,
        topic: DirectTopic,
        channels: SharedChannels,
        *,
        brokers: Callable[[], int],
        time: Callable[[], float],
    ) -> None:
        self._topic = topic
        self._channels = channels
        self._brokers = brokers
        self._time = time
        self._news = asyncio.Event()
        # Cut, but not known to be in Kafka.
        self._pending: list[tuple[str | None, bytes]] = []
        self._pending_messages = 0
        # Channels to publish a mark for, and its number.
        self._marks: list[tuple[bytes, int]] = []
        self._leaving: deque[Channel] = deque()
        self._leaving_bytes = 0
        # Whether a broker was ever here, and how many brokers the others know of.
        self._told = 0
        self._heartbeat_at = 0.0
        self._lost_log = RateLimitedLog(logger)
        self.outage = OutageLog(
            logger, subject="relay.topic", outcome="the other relays wait; trying again"
        )
        self.published = 0
        self.lost = 0
        channels.unsaved = {}
        channels.left_unsaved = self._left

    def wake(self) -> None:
        """Publish what is new."""
        self._news.set()

    def mark(self, name: bytes, number: int) -> None:
        """Publish a mark with a number for a channel."""
        self._marks.append((name, number))
        self.wake()

    @property
    def unpublished(self) -> int:
        """How many channels have something that Kafka does not."""
        return len(self._channels.unsaved or ()) + len(self._leaving)

    async def run(self) -> None:
        """Publish, again and again."""
        backoff = Backoff(*_BACKOFF_S)
        while True:
            if await self.publish():
                backoff.reset()
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await self._news.wait()
                except TimeoutError:
                    pass
            else:
                await asyncio.sleep(backoff.next_delay())

    async def publish(self) -> bool:
        """Publish all that is new; return whether Kafka took it."""
        while True:
            self._news.clear()
            if not self._pending:
                self._cut()
            if not self._pending:
                return True
            try:
                refused = await self._topic.send(self._pending)
            except UnavailableError as error:
                self.outage.failed(error.problem)
                return False
            self.outage.recovered("publishing again")
            self.lost += refused
            self.published += self._pending_messages
            self._pending, self._pending_messages = [], 0

    async def say_goodbye(self) -> None:
        """Publish the rest, and that this relay has no brokers any more."""
        self._brokers = lambda: 0
        await self.publish()

    def _left(self, channel: Channel) -> None:
        """Keep a channel that is forgotten here until it is published, if there is room."""
        if not self._channels.is_own(channel):
            return
        self._leaving.append(channel)
        self._leaving_bytes += channel.size_bytes
        while self._leaving_bytes > _LEAVING_BYTES or len(self._leaving) > _LEAVING:
            oldest = self._leaving.popleft()
            self._leaving_bytes -= oldest.size_bytes
            self._lose(oldest, oldest.end - oldest.saved)

    def _cut(self) -> None:
        """Take the next window of what is new."""
        marks, self._marks = self._marks, []
        run = self._channels.run
        self._pending += [(name.decode(), mark_record(run, number)) for name, number in marks]
        room = _WINDOW_BYTES
        while self._leaving and room > 0:
            channel = self._leaving[0]
            room -= self._take(channel, room)
            if channel.saved < channel.end:
                return
            self._leaving_bytes -= channel.size_bytes
            self._leaving.popleft()
        unsaved = self._channels.unsaved
        assert unsaved is not None
        for channel in list(unsaved)[:_WINDOW_CHANNELS] if unsaved else ():
            if room <= 0:
                break
            if self._channels.is_own(channel):
                room -= self._take(channel, room)
            if channel.saved >= channel.end or not self._channels.is_own(channel):
                del unsaved[channel]
        self._tell_brokers()

    def _take(self, channel: Channel, room: int) -> int:
        """Cut the records of a channel; return how many bytes they have."""
        taken = 0
        if channel.saved < channel.first:
            self._lose(channel, channel.first - channel.saved)
            channel.saved = channel.first
        while True:
            start = stop = channel.saved
            if start < channel.end:
                _, stop = channel.read(start, _RECORD_BYTES)
            channel.saved = stop
            complete = stop == channel.end
            if start < stop or channel.ended:
                end = channel.end_kind if complete else None
                value = channel_record(self._channels.run, channel, start, stop, end=end)
                if not channel.begun:
                    channel.begun = True
                    self._channels.announced.add(channel.epoch)
                self._pending.append((channel.name.decode(), value))
                self._pending_messages += stop - start
                taken += len(value)
            if complete or taken >= room:
                return taken

    def _lose(self, channel: Channel, count: int) -> None:
        self.lost += count
        self._lost_log.warning(
            "lost",
            "relay.topic: %d messages of %s were dropped here before they were published",
            count,
            channel.name[:100].decode(errors="replace"),
        )

    def _tell_brokers(self) -> None:
        """Say how many brokers there are, if that changed or others have not heard it lately."""
        brokers, now = self._brokers(), self._time()
        due = brokers and now - self._heartbeat_at >= HEARTBEAT_S * 0.9
        if brokers != self._told or due:
            self._told, self._heartbeat_at = brokers, now
            self._pending.append((None, brokers_record(self._channels.run, now, brokers)))
