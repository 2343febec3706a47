"""A client of the recovering protocol: its requests, and the channels that it reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from monitor.relay.channel import Channel, End, Subscriber
from monitor.relay.protocol_v2 import (
    MAX_SUBSCRIPTIONS,
    BadRequest,
    Leave,
    Subscribe,
    decode_request,
    end_frame,
    error_frame,
    feed_frame,
    gap_frame,
    subscribed_frame,
)

if TYPE_CHECKING:
    from monitor.relay.connection import Connection
    from monitor.relay.delivery import Delivery

__all__ = ["Recoveries", "Session", "Subscription"]


class Recoveries:
    """How many subscriptions resumed exactly, and how many could not, by the reason."""

    def __init__(self) -> None:
        self.exact = 0
        self.failed: dict[str, int] = {"epoch": 0, "ahead": 0, "trimmed": 0}


class Subscription(Subscriber):
    """A session's position in one channel."""

    __slots__ = ("session",)

    follows = True

    def __init__(self, session: Session) -> None:
        self.session = session
        self.channel = None
        self.position = 0


class Session:
    """What one client of the recovering protocol is subscribed to."""

    def __init__(self, connection: Connection, delivery: Delivery) -> None:
        self.connection = connection
        self.subscriptions: dict[bytes, Subscription] = {}
        self._delivery = delivery
        # Whether the client ever asked for a channel; who does not is sent away.
        self.asked = False
        self.tell_feed("up" if delivery.feed.up else "down")

    def take(self, data: bytes) -> None:
        """Do what the client asks."""
        if not self.connection.open:
            return
        try:
            request = decode_request(data)
        except BadRequest as problem:
            self._delivery.fault(self.connection, "bad-request", f"sent no request: {problem}")
            self._write(error_frame("bad-request", str(problem)[:200]))
            return
        if isinstance(request, Leave):
            self._leave(request.channel.encode())
        else:
            self._subscribe(request)

    def tell_feed(self, state: str) -> None:
        """Tell the client how the feed is."""
        feed = self._delivery.feed
        self._write(feed_frame(state, feed.brokers, self._delivery.time()))

    def advance(self, subscription: Subscription) -> None:
        """Write what a subscription has not got yet, as far as the client takes it, and the end."""
        channel, connection = subscription.channel, self.connection
        if channel is None or not connection.writable:
            return
        if subscription.position < channel.first:
            self._outrun(subscription, channel)
        self._delivery.write_messages(connection, subscription, channel)
        if channel.ended and subscription.position == channel.end:
            self._end(subscription, channel)

    def advance_all(self) -> None:
        """Write what all subscriptions have not got yet."""
        for subscription in list(self.subscriptions.values()):
            self.advance(subscription)

    def is_behind(self) -> bool:
        """Whether anything that is kept was not written yet."""
        return any(
            subscription.channel is not None
            and subscription.channel.first <= subscription.position < subscription.channel.end
            for subscription in self.subscriptions.values()
        )

    def close(self) -> Iterable[bytes]:
        """Leave everything; return the names of the channels."""
        names = list(self.subscriptions)
        for name in names:
            self._leave(name)
        return names

    def _subscribe(self, request: Subscribe) -> None:
        name = request.channel.encode()
        delivery = self._delivery
        self._leave(name)
        if len(self.subscriptions) >= MAX_SUBSCRIPTIONS:
            delivery.fault(self.connection, "too-many", "subscribed to too many channels")
            self._write(
                error_frame(
                    "too-many-subscriptions",
                    f"at most {MAX_SUBSCRIPTIONS} channels a connection",
                    request.channel,
                )
            )
            return
        self.asked = True
        subscription = self.subscriptions[name] = Subscription(self)
        channel = delivery.channels.subscribe(subscription, name)
        recovered: bool | None = None
        if request.after is not None:
            position, problem = channel.resume(request.after.epoch, request.after.seq)
            subscription.position = position
            recovered = not problem
            if recovered:
                delivery.recoveries.exact += 1
            else:
                delivery.recoveries.failed[problem] += 1
        position = subscription.position
        self._write(subscribed_frame(name, channel.epoch, position, recovered))
        for gap in delivery.feed.gaps(channel, position):
            self._write(gap_frame(name, channel.epoch, *gap))
        delivery.subscribed(self.connection, subscription, channel)

    def _leave(self, name: bytes) -> None:
        subscription = self.subscriptions.pop(name, None)
        if subscription is not None:
            self._delivery.leave(subscription)

    def _outrun(self, subscription: Subscription, channel: Channel) -> None:
        self._delivery.recoveries.failed["trimmed"] += 1
        subscription.position = channel.first
        self._write(subscribed_frame(channel.name, channel.epoch, channel.first, False))

    def _end(self, subscription: Subscription, channel: Channel) -> None:
        how = channel.end_kind
        if how is End.FINISHED:
            frame = end_frame("finished", channel.name, channel.epoch, channel.end)
        else:
            reason = "idle" if how is End.IDLE else "failed"
            frame = end_frame("failed", channel.name, channel.epoch, channel.end, reason)
        self._write(frame)
        if self.subscriptions.get(channel.name) is subscription:
            self._leave(channel.name)

    def _write(self, frame: bytes) -> None:
        if self.connection.open:
            self.connection.transport.write(frame)
