"""One relay channel as a live page follows it, by the recovering protocol; no I/O.

A browser may not reach the relay's own port, which also knows no tokens. So a page subscribes
over its live socket, and gets what a client of ``recodex.monitor.v2`` gets: where it continues
after it was cut off, what may be missing, when the relay had no broker. A page only looks on: it
is not a subscriber, creates no channel and keeps none.
"""

from __future__ import annotations

from collections import deque

import msgspec

from monitor.relay.channel import Channel
from monitor.relay.channels import Channels
from monitor.relay.feed import Feed
from monitor.relay.frame_cache import FrameCache
from monitor.relay.protocol_v2 import After, BadRequest, Leave, Subscribe, decode_request
from monitor.relay.subscription import Subscription
from monitor.transport.frames import text_frame

__all__ = ["ChannelReader"]

_encode = msgspec.json.Encoder().encode


class ChannelReader:
    """The channel that a page follows; one at a time."""

    def __init__(self, channels: Channels, feed: Feed) -> None:
        self._channels = channels
        self._feed = feed
        # Pages are few and seldom at the same position: no block is kept for another.
        self._frames = FrameCache(0)
        self._name: bytes | None = None
        # What the page has of the channel, while it is not subscribed.
        self._after: After | None = None
        self._subscription: Subscription | None = None
        self._absent = False
        self._notices: deque[bytes] = deque()

    def take(self, data: bytes) -> bytes | None:
        """Answer a request: to follow a channel instead of another one, or to leave it.

        Returns what to send at once: nothing, or that the request is invalid.
        """
        try:
            request = decode_request(data)
        except BadRequest as problem:
            return problem.frame
        match request:
            case Subscribe(channel=name, after=after):
                self.leave()
                self._name, self._after = name.encode(), after
            case Leave(channel=name):
                if name.encode() == self._name:
                    self.leave()
        return None

    def leave(self) -> None:
        """Follow nothing."""
        self._name = self._after = self._subscription = None
        self._absent = False
        self._notices.clear()

    def next(self) -> bytes | None:
        """Return the next frame for the page, or None if it has everything."""
        name, subscription = self._name, self._subscription
        if name is None:
            return None
        if subscription is None or subscription.is_complete:
            latest = self._channels.get(name)
            if latest is None:
                return self._say_absent(name)
            if subscription is None or latest is not subscription.channel:
                return self._begin(latest)
        self._notices.extend(subscription.new_gaps(self._feed))
        if self._notices:
            return self._notices.popleft()
        return subscription.next(self._frames.read)

    def _begin(self, channel: Channel) -> bytes:
        self._suspend()
        after, self._after = self._after, None
        self._absent = False
        self._notices.clear()
        self._subscription = Subscription()
        self._subscription.channel = channel
        answer, _ = self._subscription.begin(after)
        return answer

    def _say_absent(self, name: bytes) -> bytes | None:
        """Say once that the relay has no such channel, or no longer."""
        if self._absent:
            return None
        self._absent = True
        self._suspend()
        return text_frame(_encode({"type": "absent", "channel": name.decode()}))

    def _suspend(self) -> None:
        """End the subscription, and remember how far the page is."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None and subscription.channel is not None:
            self._after = After(subscription.epoch, subscription.position)
