"""The server side of the recovering protocol for one channel of one client; no I/O.

A request goes in, frames come out: where the client continues, what may be missing, the messages
and the end. The relay's port and the live page both use it.
"""

from __future__ import annotations

from collections.abc import Callable

from monitor.relay.channel import Channel, End
from monitor.relay.feed import Feed, Gap
from monitor.relay.protocol_v2 import After, end_frame, gap_frame, subscribed_frame

__all__ = ["Subscription"]

ReadFrame = Callable[[Channel, int], tuple[bytes, int] | None]


class Subscription:
    """A client's position in a channel, and what the client was sent about the channel."""

    __slots__ = ("_begun", "_ended", "_epoch", "_feed_seen", "_gaps", "channel", "position")

    def __init__(self) -> None:
        # None before the client is subscribed, and after it left.
        self.channel: Channel | None = None
        self.position = 0
        # The epoch that the client knows.
        self._epoch = ""
        self._begun = 0
        self._ended = False
        self._gaps: frozenset[Gap] = frozenset()
        # The feed's interruptions and brokers when gaps were last looked for.
        self._feed_seen: tuple[int, int] | None = None

    @property
    def epoch(self) -> str:
        """The epoch that the client knows."""
        return self._epoch

    @property
    def is_behind(self) -> bool:
        """Whether messages that are kept were not sent yet."""
        return self.channel is not None and self.channel.keeps(self.position)

    @property
    def is_complete(self) -> bool:
        """Whether everything was sent so far: the messages, and the end if there is one."""
        channel = self.channel
        return (
            channel is not None
            and self.position == channel.end
            and self._epoch == channel.epoch
            and self._ended == channel.ended
        )

    @property
    def is_overrun(self) -> bool:
        """Whether messages were trimmed that the client has not got."""
        return self.channel is not None and self.position < self.channel.first

    def begin(self, after: After | None) -> tuple[bytes, str | None]:
        """Go to where the client continues, and return the answer to its request.

        Also returns why it cannot continue exactly ``after`` what it has (see
        :meth:`monitor.relay.channel.Channel.resume`); None if it has nothing.
        """
        channel = self.channel
        assert channel is not None
        problem = None
        self.position = channel.first
        if after is not None:
            self.position, problem = channel.resume(after.epoch, after.seq)
        self._begun = self.position
        self._epoch = channel.epoch
        recovered = None if problem is None else not problem
        known = channel.end > 0
        answer = subscribed_frame(channel.name, channel.epoch, self.position, recovered, known)
        return answer, problem

    def new_gaps(self, feed: Feed) -> list[bytes]:
        """Return notices of where messages may be missing, except those returned before."""
        channel = self.channel
        seen = feed.interruptions, feed.brokers
        if channel is None or seen == self._feed_seen:
            return []
        self._feed_seen = seen
        if not feed.outages:
            return []
        gaps = list(feed.gaps(channel, self._begun))
        known, self._gaps = self._gaps, frozenset(gaps)
        return [gap_frame(channel.name, channel.epoch, *gap) for gap in gaps if gap not in known]

    def next(self, read: ReadFrame) -> bytes | None:
        """Return the next frame; None if the client has everything, or if ``read`` returns None.

        ``read`` returns the frame at a position of a channel, and the position after it.
        """
        channel = self.channel
        if channel is None:
            return None
        if self._epoch != channel.epoch:
            return self._go_on(channel)
        position = self.position
        if position < channel.first:
            self.position = channel.first
            return subscribed_frame(channel.name, channel.epoch, channel.first, False)
        if position < channel.end:
            found = read(channel, position)
            if found is None:
                return None
            frame, self.position = found
            return frame
        if self._ended or channel.end_kind is None:
            return None
        self._ended = True
        return _end(channel, channel.end_kind)

    def _go_on(self, channel: Channel) -> bytes:
        """Return the notice that the channel continues under another epoch."""
        self.position, problem = channel.resume(self._epoch, self.position)
        self._epoch = channel.epoch
        return subscribed_frame(channel.name, channel.epoch, self.position, not problem)


def _end(channel: Channel, kind: End) -> bytes:
    name, epoch, seq = channel.name, channel.epoch, channel.end
    if kind is End.FINISHED:
        return end_frame("finished", name, epoch, seq)
    return end_frame("failed", name, epoch, seq, "idle" if kind is End.IDLE else "failed")
