"""All channels: what is published, kept, trimmed and forgotten; no I/O, no clock.

**A subscriber is a position in a channel's history**: the number of the next message that it
needs. Replay, live messages and resuming are one path, which reads from a position to the end.

**Memory has two accounts.** Histories, which brokers fill, and what waits: subscriptions and
channels without a message, which anyone can make. Each has a part of ``max_history_bytes`` that
the other cannot take.

``now`` is the time (s) on a clock that never goes back; ``at`` is the time of day (s since the
epoch).
"""

from __future__ import annotations

import itertools
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

from monitor.relay.channel import (
    MESSAGE_BYTES,
    SUBSCRIPTION_BYTES,
    Channel,
    End,
    Subscriber,
)
from monitor.relay.settings import RelaySettings

__all__ = ["Channels"]

T = TypeVar("T")
# The part of max_history_bytes for what waits; but a client more can always wait for a channel.
_WAITING_PART = 4
_WAITING_BYTES_PER_CLIENT = 2048


class Channels:
    """All channels by name, their memory, and when each ends or is forgotten."""

    def __init__(self, limits: RelaySettings) -> None:
        self.limits = limits
        self.subscriber_count = 0
        # Of channels with messages, and of those without.
        self._kept_bytes = 0
        self._empty_bytes = 0
        self._by_name: dict[bytes, Channel] = {}
        # Each is ordered by its times, so that only the first entries are looked at. A channel with
        # messages is in open or in ended; also in failed while FAILED is its last command.
        self._open: OrderedDict[Channel, float] = OrderedDict()
        self._failed: OrderedDict[Channel, float] = OrderedDict()
        self._ended: OrderedDict[Channel, float] = OrderedDict()
        # Without a message and a subscriber, but a client may come back that knows the epoch.
        self._awaited: OrderedDict[Channel, float] = OrderedDict()
        # Subscribers of channels without a message, in the order in which they came.
        self._silent: OrderedDict[Subscriber, float] = OrderedDict()
        # Epochs are unique, even across restarts of a daemon.
        self.run = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        # If histories are saved: what has to be saved, and the keys of what has to be deleted.
        self.unsaved: dict[Channel, None] | None = None
        self.forgotten: list[int] = []

    @property
    def history_bytes(self) -> int:
        """How much memory all channels take."""
        return self._kept_bytes + self._empty_bytes

    @property
    def counted_bytes(self) -> int:
        """How much memory all channels and subscriptions take."""
        return self._kept_bytes + self.waiting_bytes

    @property
    def waiting_bytes(self) -> int:
        """How much memory subscriptions take, and channels without a message."""
        return self._empty_bytes + SUBSCRIPTION_BYTES * self.subscriber_count

    @property
    def waiting_excess_bytes(self) -> int:
        """How much more waits than may; more than 0 only if clients with several channels wait."""
        limits = self.limits
        most = max(
            limits.max_history_bytes // _WAITING_PART,
            limits.max_clients * _WAITING_BYTES_PER_CLIENT,
        )
        return self.waiting_bytes - most

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._by_name.values())

    def get(self, name: bytes) -> Channel | None:
        """Return the channel of that name, if there is one."""
        return self._by_name.get(name)

    def last_message_at(self, channel: Channel) -> float | None:
        """Return when the channel got its last message, or ended; None if it has no message."""
        return self._open.get(channel, self._ended.get(channel))

    def latest(self, limit: int) -> list[Channel]:
        """Return the channels that changed last, open ones first."""
        return list(islice(chain(reversed(self._open), reversed(self._ended)), limit))

    def publish(
        self, name: bytes, command: bytes, frame: bytes, now: float, at: float = 0.0
    ) -> Channel | None:
        """Add a message; return its channel, or None for a repeated FINISHED.

        FINISHED ends a channel. On a channel that has ended, anything but FINISHED begins a new
        one under its name.
        """
        channel = self._by_name.get(name)
        if channel is not None and channel.end_kind is not None:
            if command == b"FINISHED":
                return None
            self._forget(channel)
            channel = None
        if channel is None:
            channel = self._add(name)
        if channel.is_empty:
            self._fill(channel)
        limits, kept = self.limits, channel.append(frame, at)
        self._kept_bytes += len(frame) + MESSAGE_BYTES
        if kept > limits.max_messages:
            self._trim(channel, kept - limits.max_messages)
        if command == b"FINISHED":
            self._end(channel, End.FINISHED, now)
        else:
            self._open[channel] = now
            self._open.move_to_end(channel)
            if command == b"FAILED":
                channel.failed = True
                self._failed[channel] = now
                self._failed.move_to_end(channel)
            elif channel.failed:
                channel.failed = False
                self._failed.pop(channel, None)
            if self.unsaved is not None:
                self.unsaved[channel] = None
        if self._is_over():
            self._evict(channel)
        return channel

    def subscribe(self, subscriber: Subscriber, name: bytes, now: float = 0.0) -> Channel:
        """Put ``subscriber`` at the beginning of a channel's history, and return the channel."""
        channel = self._by_name.get(name)
        if channel is None:
            channel = self._add(name)
        elif self._awaited:
            self._awaited.pop(channel, None)
        subscriber.channel = channel
        subscriber.position = channel.first
        channel.subscribers.add(subscriber)
        self.subscriber_count += 1
        if channel.is_empty and not channel.ended:
            self._silent[subscriber] = now
        self.forget_awaited()
        return channel

    def forget_awaited(self) -> None:
        """Forget channels that wait only for clients to come back, the oldest first, if need be."""
        while self._awaited and self.waiting_excess_bytes > 0:
            self._forget(next(iter(self._awaited)))

    def leave(self, subscriber: Subscriber, now: float | None = None) -> None:
        """Remove a subscriber, and its channel if it never had a message.

        With ``now`` such a channel is kept for a while, so that a client that was only cut off
        finds the epoch that it knows.
        """
        channel = subscriber.channel
        if channel is None:
            return
        subscriber.channel = None
        self._silent.pop(subscriber, None)
        self.subscriber_count -= 1
        channel.subscribers.discard(subscriber)
        if (
            not channel.subscribers
            and not len(channel)
            and self._by_name.get(channel.name) is channel
        ):
            if now is None or channel.end:
                self._forget(channel)
            else:
                self._awaited[channel] = now

    def expire(self, now: float) -> list[Channel]:
        """End and forget the channels that are due.

        Returns the channels that ended just now and have subscribers.
        """
        limits = self.limits
        ended: list[Channel] = []
        for channel in self._due(self._failed, now - limits.end_after_failed):
            self._end(channel, End.FAILED, now)
            ended.append(channel)
        for channel in self._due(self._open, now - limits.keep_idle):
            self._end(channel, End.IDLE, now)
            self._forget(channel)
            ended.append(channel)
        for channel in self._due(self._ended, now - limits.keep_finished):
            self._forget(channel)
        for channel in self._due(self._awaited, now - limits.keep_finished):
            self._forget(channel)
        return [channel for channel in ended if channel.subscribers]

    def unheard(self, now: float) -> list[Subscriber]:
        """Return, once each, the subscribers that have waited ``keep_idle`` for a first message."""
        due = self._due(self._silent, now - self.limits.keep_idle)
        for subscriber in due:
            del self._silent[subscriber]
        return due

    def adopt(self, limits: RelaySettings) -> None:
        """Take new limits; drop what exceeds them."""
        self.limits = limits
        for channel in list(self._by_name.values()):
            if len(channel) > limits.max_messages:
                self._trim(channel, len(channel) - limits.max_messages)
        if self._is_over():
            self._evict(None)

    def restore(self, channels: Iterable[tuple[Channel, float]], now: float) -> None:
        """Add channels that were saved, each with its age (s since its last message or its end).

        What exceeds the limits is dropped, and what is too old.
        """
        for channel, age in sorted(channels, key=lambda entry: -entry[1]):
            self._by_name[channel.name] = channel
            channel.is_empty = False
            self._kept_bytes += channel.fixed_bytes + channel.size_bytes
            then = now - max(age, 0.0)
            (self._ended if channel.ended else self._open)[channel] = then
            if channel.failed and not channel.ended:
                self._failed[channel] = then
        self.adopt(self.limits)
        self.expire(now)

    def new_epoch(self) -> str:
        """Return an epoch that no channel has had before."""
        return f"{self.run}-{next(self._numbers):x}"

    def _due(self, order: OrderedDict[T, float], before: float) -> list[T]:
        due = itertools.takewhile(lambda item: item[1] <= before, order.items())
        return [each for each, _ in due]

    def _add(self, name: bytes) -> Channel:
        channel = self._by_name[name] = Channel(name, self.new_epoch())
        self._empty_bytes += channel.fixed_bytes
        return channel

    def _fill(self, channel: Channel) -> None:
        """Count a channel as one with messages."""
        for subscriber in channel.subscribers if self._silent else ():
            self._silent.pop(subscriber, None)
        channel.is_empty = False
        self._empty_bytes -= channel.fixed_bytes
        self._kept_bytes += channel.fixed_bytes
        self._awaited.pop(channel, None)

    def _empty(self, channel: Channel) -> None:
        """Drop all messages of a channel, and count it as one that waits."""
        self._trim(channel, len(channel))
        channel.is_empty = True
        self._kept_bytes -= channel.fixed_bytes + channel.size_bytes
        self._empty_bytes += channel.fixed_bytes

    def _end(self, channel: Channel, kind: End, now: float) -> None:
        channel.end_kind = kind
        self._open.pop(channel, None)
        self._failed.pop(channel, None)
        self._ended[channel] = now
        if self.unsaved is not None:
            self.unsaved[channel] = None

    def _forget(self, channel: Channel) -> None:
        """Remove a channel; subscribers that still read its end keep the object alive."""
        del self._by_name[channel.name]
        if channel.is_empty:
            self._empty_bytes -= channel.fixed_bytes
        else:
            self._kept_bytes -= channel.fixed_bytes + channel.size_bytes
        self._open.pop(channel, None)
        self._failed.pop(channel, None)
        self._ended.pop(channel, None)
        self._awaited.pop(channel, None)
        if self.unsaved is not None:
            self.unsaved.pop(channel, None)
            if channel.key:
                self.forgotten.append(channel.key)

    def _trim(self, channel: Channel, count: int, *, compact: bool = False) -> None:
        before = channel.size_bytes
        channel.trim(count)
        if compact:
            channel.compact()
        self._kept_bytes += channel.size_bytes - before
        if self.unsaved is not None:
            self.unsaved[channel] = None

    def _is_over(self) -> bool:
        """Whether histories take too much: all that is allowed, less what waits within its part."""
        limit = self.limits.max_history_bytes
        return self._kept_bytes > limit - min(self.waiting_bytes, limit // _WAITING_PART)

    def _evict(self, current: Channel | None) -> None:
        """Get below max_history_bytes: drop ended channels first, then the longest idle.

        A channel with subscribers is only emptied, so that they stay. The current channel, which
        has just got a message, comes last, even if that message finished it: it loses its older
        half, repeatedly if that is not enough.
        """
        while self._is_over():
            oldest = chain(self._ended, self._open)
            channel = next((each for each in oldest if each is not current), current)
            if channel is None:
                return
            if channel is current and len(channel) > 1:
                self._trim(channel, (len(channel) + 1) // 2, compact=True)
            elif channel.ended or not channel.subscribers:
                self._forget(channel)
                if channel is current:
                    return
            else:
                self._empty(channel)
                # There is nothing more to drop here until the next message.
                then = self._open.pop(channel)
                for subscriber in channel.subscribers:
                    self._silent[subscriber] = then
                    self._silent.move_to_end(subscriber, last=False)
                if channel is current:
                    return
