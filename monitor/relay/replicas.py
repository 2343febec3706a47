"""What relays published becomes part of this relay's channels; no I/O, no clock.

All relays read the same topic in the same order, so they have the same histories, epochs and
numbers. Several relays may publish, each what its own brokers send. If two publish for one channel,
one after the other (a broker moved) or at once, then:

- The relay that continues a channel of another one gives it a new epoch, and says up to where it
  had read the old one. The epoch that begins last in the topic holds for everybody; what others
  have beyond the place where it begins is cut off.
- The relay whose epoch holds adds at the end what it reads of others that did not know of it, and a
  relay that is cut off publishes again what it had not published. So nothing is lost. Only if three
  or more continue at the same moment, some may come twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from monitor.relay.channel import Channel
from monitor.relay.shared_channels import SharedChannels
from monitor.relay.topic_records import ChannelRecord, command_of, frames_of
from monitor.transport.frames import text_frame

__all__ = ["Again", "Replicas", "Taken"]

# Old epochs of which it is remembered what was added.
_MERGED_KEPT = 1000


class Again(NamedTuple):
    """A message that this relay has to publish as a new one."""

    command: bytes
    frame: bytes


class Taken(NamedTuple):
    """What a record changed: channels with news, and messages to publish again."""

    changed: tuple[Channel, ...] = ()
    again: tuple[Again, ...] = ()


class Replicas:
    """Applies the records of all relays to the channels.

    This relay's own are nearly always there already. What it has not published yet is not in the
    topic, and follows what is.
    """

    def __init__(self, channels: SharedChannels) -> None:
        self._channels = channels
        # By old epoch, the position up to which its messages were added.
        self._merged: OrderedDict[str, int] = OrderedDict()

    def take(self, name: bytes, record: ChannelRecord, now: float) -> Taken:
        """Apply a record; ``now`` is when it came (s), on the clock of the channels."""
        channels = self._channels
        if record.is_mark:
            return Taken()
        channel = channels.get(name)
        own = record.relay == channels.run
        if own and record.begins:
            channels.announced.discard(record.epoch)
        if channel is None:
            if own or not record.data:
                return Taken()
            return self._extend(self._begin(name, record), record, now)
        if channel.epoch == record.epoch:
            if channel.ended and record.stop <= channel.end:
                return Taken()
            return self._extend(channel, record, now)
        if channel.is_empty and not channel.end:
            return Taken() if own else self._fill(channel, record, now)
        if not record.begins or any(record.epoch == old for old, _ in channel.ancestors):
            return self._merge(channel, record)
        fork = record.same_up_to(channel.epoch)
        if fork is None and channel.ended:
            channels.forget(channel)
            return self._extend(self._begin(name, record), record, now)
        if fork is None:
            fork = _common(channel, record)
            comes_later = channel.epoch in channels.announced and _base(channel) <= fork
            if comes_later or 0 < fork < record.start:
                # It holds then; or what the record follows was cut off.
                return self._merge(channel, record)
        return self._replace(channel, record, now, fork)

    def _fill(self, channel: Channel, record: ChannelRecord, now: float) -> Taken:
        """Begin a channel at which only readers wait, who have missed nothing."""
        channel.continue_as(record.epoch, (*record.ancestors, (channel.epoch, 0)))
        self._channels.restart(channel, record.start)
        return self._extend(channel, record, now)

    def _replace(self, channel: Channel, record: ChannelRecord, now: float, same: int) -> Taken:
        """Continue with a record's epoch, which has ``same`` messages in common with this one."""
        again = self._unpublished(channel, same)
        self._channels.cut_back(channel, same)
        if channel.end > same or not same:
            # All that was kept came later.
            self._channels.restart(channel, same or record.start)
        channel.continue_as(record.epoch, tuple(record.ancestors))
        return self._extend(channel, record, now)._replace(again=again)

    def _begin(self, name: bytes, record: ChannelRecord) -> Channel:
        channel = self._channels.begin(name, record.epoch, first=record.start)
        channel.continue_as(record.epoch, tuple(record.ancestors))
        return channel

    def _extend(self, channel: Channel, record: ChannelRecord, now: float) -> Taken:
        if record.start > channel.end:
            # What is between was deleted before anybody could read it.
            self._channels.restart(channel, record.start)
        known = channel.end - record.start
        news = known < len(record.data)
        self._channels.extend(
            channel,
            *frames_of(record, known),
            now,
            failed=record.failed if news else channel.failed,
            end=record.end,
        )
        channel.saved = max(channel.saved, record.stop)
        return Taken((channel,))

    def _merge(self, channel: Channel, record: ChannelRecord) -> Taken:
        """Add what another relay published of an epoch that does not hold, if this one is ours."""
        if channel.ended or record.relay == self._channels.run:
            return Taken()
        if not self._channels.is_own(channel):
            return Taken()
        fork = next((end for old, end in channel.ancestors if old == record.epoch), 0)
        done = max(fork, self._merged.get(record.epoch, 0))
        if record.stop <= done:
            return Taken()
        self._merged[record.epoch] = record.stop
        if len(self._merged) > _MERGED_KEPT:
            self._merged.popitem(last=False)
        return Taken(again=_again(map(bytes, record.data[max(done - record.start, 0) :])))

    def _unpublished(self, channel: Channel, position: int) -> tuple[Again, ...]:
        """Return what only this relay has of a channel, from a position on."""
        start = max(position, channel.saved, channel.first)
        if start >= channel.end or not self._channels.is_own(channel):
            return ()
        return _again(map(bytes, channel.payloads(start, channel.end)))


def _again(texts: Iterable[bytes]) -> tuple[Again, ...]:
    return tuple(Again(command_of(text), text_frame(text)) for text in texts)


def _common(channel: Channel, record: ChannelRecord) -> int:
    """Return how many messages two epochs have in common that continue with the same one."""
    shared = (
        min(end, same)
        for old, end in channel.ancestors
        if (same := record.same_up_to(old)) is not None
    )
    return max(shared, default=0)


def _base(channel: Channel) -> int:
    """Return where a channel's epoch begins."""
    return channel.ancestors[-1][1] if channel.ancestors else 0
