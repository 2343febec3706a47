"""History and subscribers of each channel; no I/O, no clock.

A channel's history is its WebSocket frames in one byte string, with where each ends;
**a subscriber is a position in it**: the number of the next message that it needs. Replay,
live messages and resuming are one path, :meth:`Channel.read`, which gives the bytes between
a position and the end.

Time comes in as ``now``, s on any clock that does not go back.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

__all__ = ["Channel", "Channels", "Limits", "Subscriber"]

# What a channel costs beside its messages: objects, dictionary entries (measured, in bytes).
CHANNEL_BYTES = 900
# What a message costs beside its frame: where it ends.
MESSAGE_BYTES = 8
# Trimmed messages are really deleted once there are as many as this and a quarter of all.
_DEAD_AT_LEAST = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept for how long (s, messages, bytes)."""

    keep_finished: float = 300.0
    keep_idle: float = 21600.0
    end_after_failed: float = 60.0
    max_messages: int = 100_000
    max_history_bytes: int = 268_435_456


class Subscriber:
    """Someone who reads a channel: nothing but a position in it."""

    __slots__ = ("channel", "position")

    channel: Channel | None
    position: int


class Channel:
    """The history of one channel: messages ``first`` (kept) to ``end`` (next to come)."""

    __slots__ = ("_base", "_data", "_dead", "_ends", "ended", "first", "name", "subscribers")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.first = 0
        self.ended = False
        self.subscribers: set[Subscriber] = set()
        # Frames, one after the other; byte _base of the channel's whole stream is _data[0].
        self._data = bytearray()
        self._base = 0
        # For each message in _data, where it ends in the whole stream.
        self._ends = array("Q")
        # How many messages at the front of _data are trimmed but not yet deleted.
        self._dead = 0

    @property
    def end(self) -> int:
        """The position after the last message."""
        return self.first - self._dead + len(self._ends)

    def __len__(self) -> int:
        return len(self._ends) - self._dead

    @property
    def size_bytes(self) -> int:
        """What the history takes, bookkeeping included."""
        return len(self._data) + MESSAGE_BYTES * len(self._ends)

    def append(self, frame: bytes) -> None:
        """Add one message's frame at the end."""
        self._data += frame
        self._ends.append(self._base + len(self._data))

    def read(self, position: int, limit_bytes: int) -> tuple[bytearray, int]:
        """Return the frames from ``position`` on, and the position after them.

        At most ``limit_bytes``, but at least one message. The position must be kept
        (``first <= position < end``).
        """
        ends, base = self._ends, self._base
        index = position - self.first + self._dead
        start = ends[index - 1] if index else base
        stop_index = len(ends)
        if ends[-1] - start > limit_bytes:
            stop_index = max(bisect_right(ends, start + limit_bytes, index), index + 1)
        stop = ends[stop_index - 1]
        return self._data[start - base : stop - base], position + stop_index - index

    def trim(self, count: int) -> None:
        """Let go of the ``count`` oldest messages."""
        self.first += count
        self._dead += count
        dead = self._dead
        if dead >= len(self._ends) or (dead >= _DEAD_AT_LEAST and dead * 4 >= len(self._ends)):
            self.compact()

    def compact(self) -> None:
        """Really delete what is trimmed."""
        if self._dead:
            cut = self._ends[self._dead - 1]
            # New objects, so that memory really goes back.
            self._data = self._data[cut - self._base :]
            self._ends = self._ends[self._dead :]
            self._base = cut
            self._dead = 0


class Channels:
    """All channels by name, what they cost, and when each is due to end or to be forgotten."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.history_bytes = 0
        self.subscriber_count = 0
        self._by_name: dict[bytes, Channel] = {}
        # Each ordered by the time in it, so that only heads need a look. A channel that has
        # messages is in one of open and ended; in failed too, while its FAILED is the last word.
        self._open: OrderedDict[Channel, float] = OrderedDict()
        self._failed: OrderedDict[Channel, float] = OrderedDict()
        self._ended: OrderedDict[Channel, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._by_name.values())

    def get(self, name: bytes) -> Channel | None:
        """Return the channel of that name, if there is one."""
        return self._by_name.get(name)

    def last_message_at(self, channel: Channel) -> float | None:
        """Return when the channel got its last message, or ended; None where it has none."""
        return self._open.get(channel, self._ended.get(channel))

    def latest(self, limit: int) -> list[Channel]:
        """Return the channels in which something happened last, live ones first."""
        return list(islice(chain(reversed(self._open), reversed(self._ended)), limit))

    def publish(self, name: bytes, command: bytes, frame: bytes, now: float) -> Channel | None:
        """Add a message; return its channel, or None for a repeated FINISHED.

        FINISHED ends a channel; on one that has ended anything but FINISHED starts it anew.
        """
        channel = self._by_name.get(name)
        if channel is not None and channel.ended:
            if command == b"FINISHED":
                return None
            self._forget(channel)
            channel = None
        if channel is None:
            channel = self._add(name)
        before = channel.size_bytes
        channel.append(frame)
        if len(channel) > self.limits.max_messages:
            channel.trim(len(channel) - self.limits.max_messages)
        self.history_bytes += channel.size_bytes - before
        if command == b"FINISHED":
            self._end(channel, now)
        else:
            self._open[channel] = now
            self._open.move_to_end(channel)
            if command == b"FAILED":
                self._failed[channel] = now
                self._failed.move_to_end(channel)
            elif self._failed:
                self._failed.pop(channel, None)
        if self.history_bytes > self.limits.max_history_bytes:
            self._evict(channel)
        return channel

    def subscribe(self, subscriber: Subscriber, name: bytes) -> Channel:
        """Put ``subscriber`` at the beginning of a channel's history, and return the channel."""
        channel = self._by_name.get(name)
        if channel is None:
            channel = self._add(name)
        subscriber.channel = channel
        subscriber.position = channel.first
        channel.subscribers.add(subscriber)
        self.subscriber_count += 1
        return channel

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber, and its channel if nothing was ever said on it."""
        channel = subscriber.channel
        if channel is None or subscriber not in channel.subscribers:
            return
        channel.subscribers.discard(subscriber)
        subscriber.channel = None
        self.subscriber_count -= 1
        if (
            not channel.subscribers
            and not len(channel)
            and self._by_name.get(channel.name) is channel
        ):
            self._forget(channel)

    def expire(self, now: float) -> list[Channel]:
        """End what is due to end and forget what is due to be forgotten.

        Returns the channels that ended just now and have subscribers, to be told.
        """
        limits = self.limits
        told: list[Channel] = []
        for channel in self._due(self._failed, now - limits.end_after_failed):
            self._end(channel, now)
            told.append(channel)
        for channel in self._due(self._open, now - limits.keep_idle):
            self._end(channel, now)
            self._forget(channel)
            told.append(channel)
        for channel in self._due(self._ended, now - limits.keep_finished):
            self._forget(channel)
        return [channel for channel in told if channel.subscribers]

    def next_expiry(self) -> float | None:
        """Return when expire() has something to do next, or None."""
        limits = self.limits
        heads = [
            next(iter(order.values())) + keep
            for order, keep in (
                (self._failed, limits.end_after_failed),
                (self._open, limits.keep_idle),
                (self._ended, limits.keep_finished),
            )
            if order
        ]
        return min(heads, default=None)

    def adopt(self, limits: Limits) -> None:
        """Take new limits; what is over them goes at once."""
        self.limits = limits
        for channel in list(self._by_name.values()):
            if len(channel) > limits.max_messages:
                self._trim(channel, len(channel) - limits.max_messages)
        if self.history_bytes > limits.max_history_bytes:
            self._evict(None)

    def _due(self, order: OrderedDict[Channel, float], before: float) -> list[Channel]:
        due = []
        for channel, since in order.items():
            if since > before:
                break
            due.append(channel)
        return due

    def _add(self, name: bytes) -> Channel:
        channel = self._by_name[name] = Channel(name)
        self.history_bytes += CHANNEL_BYTES
        return channel

    def _end(self, channel: Channel, now: float) -> None:
        channel.ended = True
        self._open.pop(channel, None)
        self._failed.pop(channel, None)
        self._ended[channel] = now

    def _forget(self, channel: Channel) -> None:
        """Take a channel out; subscribers that still read its end keep the object alive."""
        del self._by_name[channel.name]
        self.history_bytes -= CHANNEL_BYTES + channel.size_bytes
        self._open.pop(channel, None)
        self._failed.pop(channel, None)
        self._ended.pop(channel, None)

    def _trim(self, channel: Channel, count: int, *, compact: bool = False) -> None:
        before = channel.size_bytes
        channel.trim(count)
        if compact:
            channel.compact()
        self.history_bytes += channel.size_bytes - before

    def _evict(self, current: Channel | None) -> None:
        """Get below max_history_bytes: finished channels go first, then the longest idle.

        A channel that someone reads is only emptied, so that its readers stay; the one that
        is being written loses its older half, again and again while it must.
        """
        limit = self.limits.max_history_bytes
        while self.history_bytes > limit:
            channel = next(iter(self._ended or self._open), None)
            if channel is None:
                return
            if channel is current and len(channel) > 1:
                self._trim(channel, (len(channel) + 1) // 2, compact=True)
            elif channel.ended or not channel.subscribers:
                self._forget(channel)
            else:
                self._trim(channel, len(channel))
                # Nothing is left to take here until the next message.
                del self._open[channel]
