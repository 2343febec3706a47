"""The old protocol: the client's first text names its channel, whose frames are the rest."""

# ruff: noqa: D102 - Reader documents the methods

from __future__ import annotations

from websockets.frames import Frame, Opcode

from monitor.relay.channel import SUBSCRIPTION_BYTES, Channel
from monitor.relay.codes import POLICY, TOO_LONG, TRY_AGAIN_LATER, UNSUPPORTED
from monitor.relay.connection import Reader, SubscriberConnection
from monitor.relay.delivery import Delivery, shown

__all__ = ["LegacyReader"]

_MAX_NAME_BYTES = 4096
# Text that is not UTF-8 (RFC 6455, section 7.4.1).
_INVALID_DATA = 1007


class LegacyReader(Reader):
    """A client of the old protocol, which is subscribed to one channel."""

    __slots__ = ("_connection", "_delivery", "_name", "_named", "channel", "position")

    def __init__(self, connection: SubscriberConnection, delivery: Delivery) -> None:
        self.held_bytes = 0
        self.channel: Channel | None = None
        self.position = 0
        self._connection = connection
        self._delivery = delivery
        # The part of the name that has arrived; later messages have no meaning.
        self._name = b""
        self._named = False

    def opened(self) -> None:
        """Limit the time for the channel's name."""
        limit_s = self._delivery.limits.subscribe_timeout
        self._connection.set_timer("subscribe", limit_s, self._name_missing)

    def take(self, frame: Frame) -> None:
        """Subscribe to the channel that the first message names; ignore all others."""
        if self._named:
            return
        if frame.opcode is Opcode.BINARY:
            self._refuse(
                UNSUPPORTED,
                "a channel's name is text",
                "binary",
                "sent binary data instead of a channel's name",
            )
            return
        # The connection limits a message, however many frames it comes in.
        self._name += bytes(frame.data)
        if frame.fin:
            name, self._name = self._name, b""
            self._subscribe(name)

    def advance(self) -> None:
        channel, connection = self.channel, self._connection
        if channel is None or not connection.is_open:
            return
        position, end = self.position, channel.end
        delivery = self._delivery
        if position < channel.first:
            delivery.fault(connection, "outrun", f"is too slow for {shown(channel.name)}: 1013")
            connection.begin_close(TRY_AGAIN_LATER, "too slow: the history went on without you")
            return
        write, chunk_at = connection.transport.write, delivery.turn.chunk
        while position < end and not connection.paused:
            chunk, after = chunk_at(channel, position)
            write(chunk)
            delivery.deliveries += after - position
            position = self.position = after
        if channel.ended and position == end:
            connection.finish(delivery.limits.client_stall)

    def moved(self, position: int) -> None:
        self.position = position

    def give_up(self) -> None:
        self._connection.finish(self._delivery.limits.client_stall)

    def advance_all(self) -> None:
        self._delivery.begin_turn()
        self.advance()

    def tell_feed(self, frame: bytes, change: int) -> None:
        """Do nothing: the old protocol has no word for it."""

    @property
    def is_behind(self) -> bool:
        return self.channel is not None and self.channel.keeps(self.position)

    def close(self) -> list[bytes]:
        channel = self.channel
        if channel is None:
            return []
        self._delivery.channels.leave(self)
        return [channel.name]

    def _subscribe(self, name: bytes) -> None:
        try:
            name.decode()
        except UnicodeDecodeError as error:
            self._stop_asking()
            self._connection.fail(_INVALID_DATA, f"{error.reason} at position {error.start}")
            return
        if not name:
            self._refuse(
                POLICY, "a channel's name is not empty", "empty-name", "sent an empty channel name"
            )
            return
        self._stop_asking()
        if len(name) > _MAX_NAME_BYTES:
            self._connection.begin_close(
                TOO_LONG, f"a channel's name is longer than {_MAX_NAME_BYTES} bytes"
            )
            return
        self._delivery.serve(self._connection)
        channel = self._delivery.subscribe(self, name, self._connection)
        self.held_bytes = SUBSCRIPTION_BYTES + channel.fixed_bytes
        if self._delivery.make_room(self._connection):
            self.advance_all()

    def _refuse(self, code: int, reason: str, kind: str, fault: str) -> None:
        self._stop_asking()
        self._delivery.fault(self._connection, kind, fault)
        self._connection.begin_close(code, reason)

    def _name_missing(self) -> None:
        self._refuse(
            POLICY, "no channel was named in time", "no-subscription", "named no channel in time"
        )

    def _stop_asking(self) -> None:
        self._named = True
        self._connection.cancel_timer("subscribe")
