"""The recovering protocol: a client asks for channels, and reads several on one connection."""

# ruff: noqa: D102 - Reader documents the methods

from __future__ import annotations

from collections.abc import Iterable

from websockets.frames import Frame, Opcode

from monitor.relay.channel import SUBSCRIPTION_BYTES
from monitor.relay.codes import POLICY, UNSUPPORTED
from monitor.relay.connection import Reader, SubscriberConnection
from monitor.relay.delivery import Delivery
from monitor.relay.protocol_v2 import (
    MAX_SUBSCRIPTIONS,
    BadRequest,
    Leave,
    Subscribe,
    decode_request,
    end_frame,
    error_frame,
    feed_frame,
)
from monitor.relay.subscription import Subscription

__all__ = ["RecoveringReader"]

# How many frames of a history are made for one subscription in one turn of the loop: each holds
# 16 KB, and together they take about half a millisecond.
_FRAMES_PER_TURN = 32
# How many bytes of frames are written together.
_WRITTEN_BYTES = 65536


class RecoveringReader(Reader):
    """A client of the recovering protocol, and its subscriptions."""

    __slots__ = (
        "_connection",
        "_delivery",
        "_feed_change",
        "_feed_missed",
        "_fragments",
        "_subscriptions",
    )

    def __init__(self, connection: SubscriberConnection, delivery: Delivery) -> None:
        self.held_bytes = 0
        self._connection = connection
        self._delivery = delivery
        self._subscriptions: dict[bytes, ClientSubscription] = {}
        self._fragments = b""
        # The last change of the feed that the client got, and whether it missed one.
        self._feed_change = 0
        self._feed_missed = False

    def opened(self) -> None:
        """Send how the feed is, and limit the time for the first request."""
        delivery = self._delivery
        delivery.serve(self._connection)
        self._tell_feed_now()
        limit_s = delivery.limits.subscribe_timeout
        self._connection.set_timer("subscribe", limit_s, self._request_missing)

    def take(self, frame: Frame) -> None:
        """Answer a request once it is whole."""
        if frame.opcode is Opcode.BINARY:
            self._connection.begin_close(UNSUPPORTED, "a request is text")
            return
        # The connection limits a message, however many frames it comes in.
        self._fragments += bytes(frame.data)
        if frame.fin:
            request, self._fragments = self._fragments, b""
            self._answer(request)

    def advance_all(self) -> None:
        if self._feed_missed:
            self._tell_feed_now()
        self._delivery.begin_turn()
        for subscription in list(self._subscriptions.values()):
            self.advance(subscription)

    def tell_feed(self, frame: bytes, change: int) -> None:
        if change <= self._feed_change:
            # It has heard of a later state when it connected.
            return
        self._feed_change = change
        # A client that does not read hears of it when it does.
        self._feed_missed = self._connection.paused
        if not self._feed_missed:
            self._connection.write(frame)

    def _tell_feed_now(self) -> None:
        feed = self._delivery.feed
        state = "up" if feed.up else "down"
        self._feed_change = self._delivery.feed_changes
        self._feed_missed = False
        self._connection.write(feed_frame(state, feed.brokers, self._delivery.time()))

    @property
    def is_behind(self) -> bool:
        return any(subscription.is_behind for subscription in self._subscriptions.values())

    def close(self) -> list[bytes]:
        names = list(self._subscriptions)
        for name in names:
            self._leave(name)
        return names

    def advance(self, subscription: ClientSubscription, answers: Iterable[bytes] = ()) -> None:
        """Write what a subscription has not got yet, as far as the client reads, and the end.

        ``answers`` come before; small frames are written together with a large one.
        """
        channel, connection, delivery = subscription.channel, self._connection, self._delivery
        due = list(answers)
        if channel is None or not connection.is_writable:
            self._write(due)
            return
        if subscription.is_overrun:
            delivery.recoveries["trimmed"] += 1
        start = max(subscription.position, channel.first)
        turn, end = delivery.turn, channel.end
        turn.allow(_FRAMES_PER_TURN)
        size = 0
        while (frame := subscription.next(turn.frame)) is not None:
            due.append(frame)
            size += len(frame)
            if size >= _WRITTEN_BYTES and subscription.position < end:
                self._write(due)
                due.clear()
                size = 0
                if connection.paused:
                    break
        self._write(due)
        delivery.deliveries += max(subscription.position - start, 0)
        if subscription.position == end:
            if channel.ended:
                self._leave(channel.name)
        elif not connection.paused:
            # A long history that nobody has read before: the others have their turn first.
            delivery.changed(channel)

    def give_up(self, subscription: ClientSubscription) -> None:
        """End a subscription to a channel on which no message came for too long."""
        channel = subscription.channel
        if channel is not None:
            self._connection.write(
                end_frame("failed", channel.name, channel.epoch, channel.end, "idle")
            )
            self._leave(channel.name)

    def _write(self, frames: list[bytes]) -> None:
        if frames and self._connection.is_open:
            transport = self._connection.transport
            if len(frames) == 1:
                transport.write(frames[0])
            else:
                transport.writelines(frames)

    def _answer(self, data: bytes) -> None:
        try:
            request = decode_request(data)
        except BadRequest as problem:
            self._delivery.fault(
                self._connection, "bad-request", f"sent an invalid request: {problem}"
            )
            self._connection.write(problem.frame)
            return
        if isinstance(request, Leave):
            self._leave(request.channel.encode())
        else:
            self._subscribe(request)

    def _subscribe(self, request: Subscribe) -> None:
        delivery, connection = self._delivery, self._connection
        name = request.channel.encode()
        self._leave(name)
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            delivery.fault(connection, "too-many", "subscribed to too many channels")
            connection.write(
                error_frame(
                    "too-many-subscriptions",
                    f"at most {MAX_SUBSCRIPTIONS} channels a connection",
                    request.channel,
                )
            )
            return
        connection.cancel_timer("subscribe")
        subscription = ClientSubscription(self)
        channel = delivery.subscribe(subscription, name, connection)
        # All subscriptions of a channel share one copy of its name.
        self._subscriptions[channel.name] = subscription
        self.held_bytes += SUBSCRIPTION_BYTES + channel.fixed_bytes
        if not delivery.make_room(connection):
            return
        answer, problem = subscription.begin(request.after)
        if problem is not None:
            delivery.recoveries[problem] += 1
        delivery.begin_turn()
        self.advance(subscription, [answer, *subscription.new_gaps(delivery.feed)])

    def _leave(self, name: bytes) -> None:
        subscription = self._subscriptions.pop(name, None)
        if subscription is not None:
            channel = subscription.channel
            if channel is not None:
                self.held_bytes -= SUBSCRIPTION_BYTES + channel.fixed_bytes
            self._delivery.leave(subscription)

    def _request_missing(self) -> None:
        self._delivery.fault(self._connection, "no-subscription", "named no channel in time")
        self._connection.begin_close(POLICY, "no channel was named in time")


class ClientSubscription(Subscription):
    """A subscription that the channel's news reach."""

    __slots__ = ("_reader",)

    def __init__(self, reader: RecoveringReader) -> None:
        super().__init__()
        self._reader = reader

    def advance(self) -> None:
        self._reader.advance(self)

    def give_up(self) -> None:
        self._reader.give_up(self)

    def moved(self, position: int) -> None:
        """Do nothing: the next frame tells the client."""
