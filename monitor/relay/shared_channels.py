"""The channels of relays that share a topic; no I/O, no clock."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from monitor.relay.channel import MESSAGE_BYTES, Channel, End
from monitor.relay.channels import Channels
from monitor.relay.settings import RelaySettings

__all__ = ["SharedChannels"]


class SharedChannels(Channels):
    """Channels that also take what other relays published."""

    def __init__(self, limits: RelaySettings) -> None:
        super().__init__(limits)
        # Epochs whose begin was published here and not yet read again.
        self.announced: set[str] = set()
        # Called with a channel that is forgotten before all of it was published.
        self.left_unsaved: Callable[[Channel], None] | None = None

    def is_own(self, channel: Channel) -> bool:
        """Whether the channel's epoch is from this run."""
        return channel.epoch.partition("-")[0] == self.run

    def take_over(self, channel: Channel) -> None:
        """Let a channel of another relay continue here, with the next message."""
        channel.continue_as(self.new_epoch(), (*channel.ancestors, (channel.epoch, channel.end)))
        channel.saved = channel.end

    def begin(self, name: bytes, epoch: str, *, first: int) -> Channel:
        """Add a channel whose history begins at a position; it must not be there."""
        channel = self._by_name[name] = Channel(name, epoch, first=first)
        self._empty_bytes += channel.fixed_bytes
        return channel

    def restart(self, channel: Channel, first: int) -> None:
        """Let a channel continue at a position, without what it has."""
        if not channel.is_empty:
            self._trim(channel, len(channel))
        channel.compact()
        channel.restart(first)
        for subscriber in channel.subscribers if channel.is_empty else ():
            subscriber.moved(first)

    def cut_back(self, channel: Channel, position: int) -> None:
        """Drop a channel's messages from a position on; readers who had them continue there."""
        before = channel.size_bytes
        channel.cut_back(position)
        if not channel.is_empty:
            self._kept_bytes += channel.size_bytes - before
        for subscriber in channel.subscribers:
            if subscriber.position > position:
                subscriber.moved(position)

    def extend(
        self,
        channel: Channel,
        frames: bytes,
        sizes: array[int],
        times: array[float],
        now: float,
        *,
        failed: bool,
        end: End | None,
    ) -> None:
        """Add messages at a channel's end, and its end if there is one.

        ``failed`` says whether FAILED is the last command.
        """
        if channel.is_empty:
            self._fill(channel)
        if channel.ended:
            # Another relay had more patience.
            channel.end_kind = None
            self._ended.pop(channel, None)
        channel.extend(frames, sizes, times)
        self._kept_bytes += len(frames) + MESSAGE_BYTES * len(sizes)
        if len(channel) > self.limits.max_messages:
            self._trim(channel, len(channel) - self.limits.max_messages)
        self._failed.pop(channel, None)
        channel.failed = failed
        if end is not None:
            self._end(channel, end, now)
        else:
            self._open[channel] = now
            self._open.move_to_end(channel)
            if failed:
                self._failed[channel] = now
        if self._is_over():
            self._evict(channel)

    def forget(self, channel: Channel) -> None:
        """Remove a channel that ended, for another one under its name."""
        self._forget(channel)

    def forget_if_over(self, name: bytes, now: float) -> None:
        """Forget a channel that ended longer ago than it is kept, and that nobody reads."""
        channel = self._by_name.get(name)
        if channel is not None and not channel.subscribers:
            ended = self._ended.get(channel)
            if ended is not None and now - ended >= self.limits.keep_finished:
                self._forget(channel)

    def put_in_order(self) -> None:
        """Order the channels by their times again, after many were added in another order."""
        for order in (self._open, self._failed, self._ended):
            entries = sorted(order.items(), key=lambda entry: entry[1])
            order.clear()
            order.update(entries)

    def _forget(self, channel: Channel) -> None:
        if self.left_unsaved is not None and self.unsaved is not None and channel in self.unsaved:
            self.left_unsaved(channel)
        super()._forget(channel)
