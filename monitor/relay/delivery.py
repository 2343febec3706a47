"""What each client still has to get, written as far as its transport takes it.

One path serves replay, live messages and clients that were slow: what lies between a
reader's position and the channel's end. Server frames are not masked, so with compression
off the same bytes go to every reader of a channel: they are cut once a position, and all
that is due in one turn of the loop goes out in one write a client. Where there is much to
write, several turns are joined.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from itertools import islice

from websockets.protocol import State

from monitor.logfile import RateLimitedLog
from monitor.relay.batches import Batches
from monitor.relay.channel import Channel, Subscriber
from monitor.relay.channels import Channels
from monitor.relay.codes import NORMAL, TRY_AGAIN_LATER
from monitor.relay.connection import Connection
from monitor.relay.feed import Feed
from monitor.relay.protocol import PING
from monitor.relay.session import Recoveries, Session, Subscription
from monitor.relay.settings import RelaySettings

__all__ = ["PING_S", "Delivery", "shown"]

logger = logging.getLogger("monitor.relay")

# Well below the 60 s after which proxies cut idle connections.
PING_S = 20
# What one write may hold; a transport takes at most this beyond its own limit.
_CHUNK_BYTES = 65536
# Blocks that are put into the recovering protocol's frames for one client in one turn: 64 KB
# take about half a millisecond.
_BATCHES_A_TURN = 8
# A flush is followed by a rest of so many times what it took, but no longer than this: a send
# costs the kernel more than everything else costs us, so where there is much to send, what
# comes meanwhile goes out joined. Writing takes a fifth of the time at most; and where a flush
# is so long that hundreds are written to, about a ninth.
_REST_FACTOR = 4
_LONG_FLUSH_S = 0.005
_LONG_REST_FACTOR = 8
_REST_MAX_S = 0.1
# A rest ends early when so much waits. No frame is shorter than 16 bytes, so that half as many
# bytes as this for each message that a channel keeps are less than half a channel's history.
_WAITING_MAX_BYTES = 1_048_576
_FRAME_MIN_BYTES = 16

Chunks = dict[int, tuple[bytearray, int]]
Batch = dict[int, tuple[bytes, int]]


class Delivery:
    """Writes to the clients of :class:`Channels` what is due."""

    def __init__(self, channels: Channels, feed: Feed, clock: Callable[[], float]) -> None:
        self.channels = channels
        self.feed = feed
        self.time = time.time
        self.deliveries = 0
        self.recoveries = Recoveries()
        self.faults: dict[str, int] = {}
        self.faults_log = RateLimitedLog(logger)
        self.clients_log = RateLimitedLog(logger, lines=300, period_s=30)
        self._clock = clock
        self._dirty: dict[Channel, None] = {}
        self._flush_handle: asyncio.Handle | None = None
        self._resting = False
        self._rested_at = 0.0
        # Frames that came since the last flush.
        self._waiting_bytes = 0
        self._batches = Batches()
        # What was made for readers of the recovering protocol in this turn.
        self._cut: dict[Channel, Batch] = {}
        self._flushing = False
        # Clients whose transport is full: (bytes untaken at the last look, since when no less).
        self._stalled: dict[Connection, tuple[int, float]] = {}
        # Connections by the second in which they are pinged, so that pings are spread.
        self._ping_turns: list[set[Connection]] = [set() for _ in range(PING_S)]
        self._turn = 0

    @property
    def limits(self) -> RelaySettings:
        """The limits in force."""
        return self.channels.limits

    # Clients

    def join(self, connection: Connection, name: str | None) -> None:
        """Ping a client from now on; with the old protocol, subscribe it to ``name``."""
        self._ping_turns[hash(connection) % PING_S].add(connection)
        if name is not None:
            channel = self.channels.subscribe(connection, name.encode())
            self._say_subscribed(connection, channel)
            self._advance(connection, {})

    def subscribed(
        self, connection: Connection, subscription: Subscription, channel: Channel
    ) -> None:
        """Begin with what a new subscription has to get."""
        self._say_subscribed(connection, channel)
        subscription.session.advance(subscription)

    def leave(self, subscriber: Subscriber) -> None:
        """Take a subscription away."""
        self.channels.leave(subscriber, self._clock())

    def left(self, connection: Connection) -> list[bytes]:
        """Forget a client that is gone; return the names of the channels that it read."""
        self._ping_turns[hash(connection) % PING_S].discard(connection)
        self._stalled.pop(connection, None)
        if connection.session is not None:
            return list(connection.session.close())
        channel = connection.channel
        if channel is None:
            return []
        self.channels.leave(connection)
        return [channel.name]

    def fault(self, connection: Connection, kind: str, text: str) -> None:
        """Count and log what a client did wrong; ``kind`` is one of a fixed few."""
        self.faults[kind] = self.faults.get(kind, 0) + 1
        self.faults_log.warning(kind, "%s %s", connection.peer(), text)

    def _say_subscribed(self, connection: Connection, channel: Channel) -> None:
        self.clients_log.info("client", "%s subscribed to %s", connection, shown(channel.name))

    def sessions(self) -> Iterator[Session]:
        """Yield the clients of the recovering protocol."""
        for turn in self._ping_turns:
            for connection in turn:
                if connection.session is not None:
                    yield connection.session

    # Messages

    def received(self, channel: Channel, frame_bytes: int) -> None:
        """Note that a channel got a frame of so many bytes; :meth:`received_all` follows."""
        self._dirty[channel] = None
        self._waiting_bytes += frame_bytes

    def received_all(self) -> None:
        """Write all that is due, now or after the last flush's rest."""
        if self._dirty and self._may_begin() and not self._rest():
            self.flush()

    def changed(self, channel: Channel) -> None:
        """Note that a channel has news, which go out in this turn of the loop or after the rest."""
        self._dirty[channel] = None
        if self._may_begin() and not self._rest():
            self._flush_handle = asyncio.get_running_loop().call_soon(self.flush)

    def _may_begin(self) -> bool:
        """Whether no flush is on its way, or one that rests though enough waits by now."""
        return self._flush_handle is None or (self._resting and self._enough_waits())

    def _enough_waits(self) -> bool:
        kept_bytes = self.channels.limits.max_messages * _FRAME_MIN_BYTES
        return self._waiting_bytes >= min(_WAITING_MAX_BYTES, kept_bytes // 2)

    def _rest(self) -> bool:
        """Put off the next flush where there is reason to; return whether there was."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        rest = self._rested_at - self._clock()
        self._resting = rest > 0 and not self._enough_waits()
        if self._resting:
            self._flush_handle = asyncio.get_running_loop().call_later(rest, self.flush)
        return self._resting

    def flush(self) -> None:
        """Write to every subscriber of a changed channel what it has not got yet."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        self._flushing = True
        started = time.thread_time()
        dirty, self._dirty = self._dirty, {}
        self._waiting_bytes = 0
        begun = 0
        try:
            for channel in dirty:
                begun += 1
                self._write_to_readers(channel)
        finally:
            self._cut.clear()
            self._flushing = False
            # Of this thread's own time: what others took meanwhile is no reason to rest.
            took = time.thread_time() - started
            factor = _REST_FACTOR if took < _LONG_FLUSH_S else _LONG_REST_FACTOR
            self._rested_at = self._clock() + min(factor * took, _REST_MAX_S)
            # A defect with one channel is for the loop to tell; the others go on without it.
            for channel in islice(dirty, begun, None):
                self.changed(channel)

    def _write_to_readers(self, channel: Channel) -> None:
        if channel.subscribers:
            # Most subscribers stand at the same position: its bytes are cut once.
            chunks: Chunks = {}
            readers = channel.subscribers
            for subscriber in list(readers) if channel.ended else readers:
                self._advance(subscriber, chunks)  # type: ignore[arg-type]
        if channel.followers:
            for follower in list(channel.followers):
                follower.session.advance(follower)  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Flush no more."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()

    def write_messages(
        self, connection: Connection, subscription: Subscription, channel: Channel
    ) -> None:
        """Write what a subscription has not got yet, as far as its client takes it."""
        position, end = subscription.position, channel.end
        if position >= end:
            return
        cut = self._cut.get(channel)
        if cut is None:
            cut = self._cut[channel] = {}
            if not self._flushing:
                asyncio.get_running_loop().call_soon(self._cut.clear)
        write, batches = connection.transport.write, self._batches
        enough = batches.made + _BATCHES_A_TURN
        while position < end and not connection.paused:
            batch = cut.get(position)
            if batch is None:
                if batches.made >= enough:
                    # A long history that nobody read before: others have their turn, too.
                    self.changed(channel)
                    return
                resuming = not self._flushing
                batch = cut[position] = batches.read(channel, position, resuming=resuming)
            write(batch[0])
            self.deliveries += batch[1] - position
            position = subscription.position = batch[1]

    def _advance(self, connection: Connection, chunks: Chunks) -> None:
        """Write what lies between a subscriber's position and the end, as far as it takes it."""
        channel = connection.channel
        if channel is None or connection.end.done() or connection.protocol.state is not State.OPEN:
            return
        end = channel.end
        position = connection.position
        if position < channel.first:
            self.fault(connection, "outrun", f"is too slow for {shown(channel.name)}: 1013")
            connection.finish((TRY_AGAIN_LATER, "too slow: the history went on without you"))
            return
        write = connection.transport.write
        while position < end and not connection.paused:
            chunk = chunks.get(position)
            if chunk is None:
                chunk = chunks[position] = channel.read(position, _CHUNK_BYTES)
            write(chunk[0])
            self.deliveries += chunk[1] - position
            position = connection.position = chunk[1]
        if channel.ended and position == end:
            connection.finish((NORMAL, ""))

    def is_behind(self, connection: Connection) -> bool:
        """Whether anything that is kept was not yet written to a client."""
        if connection.session is not None:
            return connection.session.is_behind()
        channel = connection.channel
        return channel is not None and channel.first <= connection.position < channel.end

    # Slow clients

    def paused(self, connection: Connection) -> None:
        """Watch a client whose transport is full, until it takes something."""
        self._stalled[connection] = (connection.untaken_bytes(), self._clock())

    def resumed(self, connection: Connection) -> None:
        """Go on with a client that took what it had."""
        self._stalled.pop(connection, None)
        loop = asyncio.get_running_loop()
        if connection.session is not None:
            loop.call_soon(connection.session.advance_all)
        else:
            loop.call_soon(self._advance, connection, {})

    def sweep(self) -> None:
        """Do what is due each second: end stalled clients, ping a share of the others."""
        now = self._clock()
        for connection, (waiting, since) in list(self._stalled.items()):
            left = connection.untaken_bytes()
            if left < waiting:
                self._stalled[connection] = (left, now)
            elif now - since >= self.limits.client_stall and not connection.end.done():
                self.fault(connection, "stalled", f"took nothing for {now - since:.0f} s: 1013")
                connection.finish((TRY_AGAIN_LATER, "took nothing for too long"))
        self._turn = (self._turn + 1) % PING_S
        if not self._turn:
            self._batches.grow_old()
        for connection in self._ping_turns[self._turn]:
            if connection.protocol.state is State.OPEN and not connection.paused:
                connection.transport.write(PING)


def shown(name: bytes) -> str:
    """Write a channel's name for the log."""
    text = name[:100].decode(errors="replace")
    return f"{text}..." if len(name) > 100 else text
