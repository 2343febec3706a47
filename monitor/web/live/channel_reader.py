"""One channel of the relay as a live page follows it, in the recovering protocol's messages.

The relay's own port may be out of a browser's reach, and knows no tokens. So a page subscribes
over its live socket, and is told what a client of ``recodex.monitor.v2`` is told: where it goes on
after it was cut off, what may be missing, when the relay had no broker. A page only looks on: it
is no subscriber, makes no channel and keeps none. No I/O.
"""

from __future__ import annotations

from collections import deque

import msgspec

from monitor.relay.batches import Batches
from monitor.relay.channel import Channel, End
from monitor.relay.channels import Channels
from monitor.relay.feed import Feed, Gap
from monitor.relay.protocol_v2 import (
    BadRequest,
    Leave,
    Subscribe,
    decode_request,
    end_frame,
    error_frame,
    gap_frame,
    subscribed_frame,
)
from monitor.web.http.websocket import text_frame

__all__ = ["ChannelReader"]

_encode = msgspec.json.Encoder().encode


class ChannelReader:
    """A page's place in the channel that it follows; one at a time."""

    def __init__(self, channels: Channels, feed: Feed) -> None:
        self._channels = channels
        self._feed = feed
        # Pages are few and seldom at the same place: no block is kept for another.
        self._batches = Batches(0)
        self._name: bytes | None = None
        self._known: tuple[str, int] | None = None
        self._channel: Channel | None = None
        self._begun = self._position = 0
        self._ended = self._absent = False
        self._gaps: frozenset[Gap] = frozenset()
        # The feed's interruptions and brokers at the last look for gaps.
        self._looked = (0, 0)
        self._notices: deque[bytes] = deque()

    def take(self, data: bytes) -> bytes | None:
        """Do what the page asks: follow a channel, instead of another, or leave it.

        Returns what to answer at once, if anything: that it was not understood.
        """
        try:
            request = decode_request(data)
        except BadRequest as problem:
            return error_frame("bad-request", str(problem)[:200])
        match request:
            case Subscribe(channel=name, after=after):
                self.leave()
                self._name = name.encode()
                self._known = None if after is None else (after.epoch, after.seq)
            case Leave(channel=name):
                if name.encode() == self._name:
                    self.leave()
        return None

    def leave(self) -> None:
        """Follow nothing."""
        self._name = self._known = self._channel = None
        self._absent = False
        self._notices.clear()

    def next(self) -> bytes | None:
        """Return the next frame that the page has to get, or None where it has all."""
        name = self._name
        if name is None:
            return None
        if self._channel is None or self._has_all(self._channel):
            latest = self._channels.get(name)
            if latest is None:
                return self._say_absent(name)
            if latest is not self._channel:
                return self._begin(latest)
        channel = self._channel
        assert channel is not None
        self._look_for_gaps(channel)
        if self._notices:
            return self._notices.popleft()
        if self._position < channel.first:
            # It took nothing for so long that the history went on without it.
            self._position = channel.first
            return subscribed_frame(channel.name, channel.epoch, channel.first, False)
        if self._position < channel.end:
            frame, self._position = self._batches.read(channel, self._position)
            return frame
        if channel.ended and not self._ended:
            self._ended = True
            return _end(channel)
        return None

    def _has_all(self, channel: Channel) -> bool:
        return self._position == channel.end and self._ended == channel.ended

    def _begin(self, channel: Channel) -> bytes:
        position, recovered = channel.first, None
        if self._known is not None:
            position, problem = channel.resume(*self._known)
            recovered = not problem
        elif self._channel is not None:
            recovered = False  # the same name anew
        self._known, self._channel = None, channel
        self._begun = self._position = position
        self._ended = self._absent = False
        self._notices.clear()
        self._gaps, self._looked = frozenset(), (0, 0)
        return subscribed_frame(channel.name, channel.epoch, position, recovered)

    def _say_absent(self, name: bytes) -> bytes | None:
        """Say once that the relay has no such channel, and let go of the one that it had."""
        if self._absent:
            return None
        self._absent = True
        if self._channel is not None:
            self._known = self._channel.epoch, self._position
            self._channel = None
        return text_frame(_encode({"type": "absent", "channel": name.decode()}))

    def _look_for_gaps(self, channel: Channel) -> None:
        """Note where messages may be missing, as far as the page was not told."""
        now = self._feed.interruptions, self._feed.brokers
        if now == self._looked:
            return
        self._looked = now
        gaps = list(self._feed.gaps(channel, self._begun))
        self._notices.extend(
            gap_frame(channel.name, channel.epoch, *gap) for gap in gaps if gap not in self._gaps
        )
        self._gaps = frozenset(gaps)


def _end(channel: Channel) -> bytes:
    if channel.end_kind is End.FINISHED:
        return end_frame("finished", channel.name, channel.epoch, channel.end)
    reason = "idle" if channel.end_kind is End.IDLE else "failed"
    return end_frame("failed", channel.name, channel.epoch, channel.end, reason)
