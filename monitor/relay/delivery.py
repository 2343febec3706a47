"""Writes to each client the messages that it has not got yet, as far as the client reads.

One path serves replay, live messages and clients that were slow: a reader writes the messages
from its position to the channel's end. The messages of one turn of the loop go out in one write
per client; under load, those of several turns are joined. What goes to very many clients is
written over several turns, so that nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import operator
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from monitor.log_limits import RateLimitedLog
from monitor.relay.channel import Channel, Subscriber
from monitor.relay.channels import Channels
from monitor.relay.codes import TRY_AGAIN_LATER
from monitor.relay.connection import SubscriberConnection
from monitor.relay.feed import Feed
from monitor.relay.frame_cache import FrameCache, TurnFrames
from monitor.relay.protocol_v2 import feed_frame
from monitor.relay.settings import RelaySettings
from monitor.transport.fair import Budget
from monitor.transport.frames import PING
from monitor.yielding import over_turns

__all__ = ["Delivery", "shown"]

logger = logging.getLogger("monitor.relay")

T = TypeVar("T")
_advance = operator.methodcaller("advance")

# s of a turn of the loop for what goes to many clients, and after how many the clock is asked for.
_PIECE_S = 0.005
_ASK_EVERY = 8
_PING_TURNS = 20
# A frame that nobody has read for this long is made again for the next reader.
_FRAMES_KEPT_S = 20
# A flush is followed by a rest: a send costs the kernel more than everything else costs the relay,
# so under load the messages of several turns go out joined. Flushes and what else the loop does
# take this share of the time at most, but flushes may always take the second one. An idle loop owes
# nobody a delay.
_BUSY_SHARE = 0.75
_FLUSH_SHARE_MIN = 0.2
_REST_MAX_S = 0.1
# How long (s) the loop's other work is measured before the share of flushes is set again.
_MEASURED_S = 0.1
# Notices about the feed may take this much time (s) at once, and this share of it in the long run;
# past it there is a rest after each piece.
_FEED_BURST_S = 0.02
_FEED_SHARE = 0.05
_FEED_REST_S = 0.05
# A rest ends early when this much waits. No frame is shorter than 16 bytes, so half as many bytes
# as this for each message that a channel keeps are less than half of a channel's history.
_WAITING_MAX_BYTES = 1_048_576
_FRAME_MIN_BYTES = 16


class Delivery:
    """Writes what is due to the clients of :class:`Channels`."""

    def __init__(self, channels: Channels, feed: Feed, clock: Callable[[], float]) -> None:
        self.channels = channels
        self.feed = feed
        self.time = time.time
        self.deliveries = 0
        # Subscriptions that resumed exactly (""), and that could not, by the reason.
        self.recoveries = dict.fromkeys(("", "epoch", "ahead", "trimmed"), 0)
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
        # Whom the flush has not written to yet, what it took so far (s), and whether another one is
        # to follow at once.
        self._unwritten: Iterator[Subscriber] | None = None
        self._flush_took = 0.0
        self._flush_share = _BUSY_SHARE
        # Since when, this thread's time then, and what flushes took of it.
        self._measured = clock(), time.thread_time(), 0.0
        self._again = False
        # What the clients are to get about the feed, the last change last, and whom the last such
        # notice has not reached yet.
        self._feed_states: list[str] = []
        self._feed_frame = b""
        self._feed_budget = Budget()
        # How many changes there were, and how many when the notice was made.
        self.feed_changes = 0
        self._feed_noticed = 0
        self._untold: Iterator[SubscriberConnection] | None = None
        self._feed_handle: asyncio.Handle | None = None
        self._frames = FrameCache()
        # What readers get in this turn of the loop, and what clears it outside of a flush.
        self.turn = TurnFrames(self._frames)
        self._flushing = False
        self._turn_handle: asyncio.Handle | None = None
        # Clients whose transport is full: (bytes unread at the last look, since when no fewer).
        self._stalled: dict[SubscriberConnection, tuple[int, float]] = {}
        # Connections by their turn to be pinged, so that pings are spread over the interval.
        self._ping_turns: list[set[SubscriberConnection]] = [set() for _ in range(_PING_TURNS)]
        self._ping_turn = 0
        self._pinged_at = self._expired_at = clock()

    @property
    def unread_bytes(self) -> int:
        """How much waits in memory for clients that do not read."""
        return sum(connection.buffered_bytes for connection in self._stalled)

    @property
    def limits(self) -> RelaySettings:
        """The limits in force."""
        return self.channels.limits

    # Clients

    def serve(self, connection: SubscriberConnection) -> None:
        """Ping a client from now on, and tell it about the feed."""
        self._ping_turns[hash(connection) % _PING_TURNS].add(connection)

    def left(self, connection: SubscriberConnection) -> list[bytes]:
        """Forget a client whose connection is lost; return the names of its channels."""
        self._ping_turns[hash(connection) % _PING_TURNS].discard(connection)
        self._stalled.pop(connection, None)
        return connection.reader.close()

    def subscribe(
        self, subscriber: Subscriber, name: bytes, connection: SubscriberConnection
    ) -> Channel:
        """Put a subscriber at the beginning of a channel's history, and return the channel."""
        channel = self.channels.subscribe(subscriber, name, self._clock())
        self.clients_log.info("client", "%s subscribed to %s", connection.peer, shown(name))
        return channel

    def make_room(self, connection: SubscriberConnection) -> bool:
        """Close the clients that hold most while too much waits; return whether this one stays."""
        while self.channels.waiting_excess_bytes > 0:
            served = (each for turn in self._ping_turns for each in turn if each.is_open)
            most = max(served, key=lambda each: each.reader.held_bytes, default=None)
            if most is None:
                break
            self.fault(most, "too-much", "holds more channels than the others: 1013")
            most.begin_close(TRY_AGAIN_LATER, "too many channels for all clients together")
            most.reader.close()
            self.channels.forget_awaited()
        return connection.is_open

    def leave(self, subscriber: Subscriber) -> None:
        """End a subscription; the channel keeps its epoch for a client that comes back."""
        self.channels.leave(subscriber, self._clock())

    def fault(self, connection: SubscriberConnection, kind: str, text: str) -> None:
        """Count and log what a client did wrong; ``kind`` is one of a fixed few."""
        self.faults[kind] = self.faults.get(kind, 0) + 1
        self.faults_log.warning(kind, "%s %s", connection.peer, text)

    def feed_changed(self, state: str) -> None:
        """Tell the clients that the feed is ``up`` or ``down``, or that a broker is ``lost``.

        Brokers may come and go faster than very many clients can hear of each change: they get
        the latest, and that one was lost.
        """
        self.feed_changes += 1
        self._feed_states = [each for each in self._feed_states if each != state] + [state]
        if self._feed_handle is None:
            self._tell_feed()

    def _tell_feed(self) -> None:
        self._feed_handle = None
        if self._untold is None:
            states, self._feed_states = self._feed_states, []
            if not states:
                return
            self._feed_noticed = self.feed_changes
            at, brokers = self.time(), self.feed.brokers
            self._feed_frame = b"".join(feed_frame(state, brokers, at) for state in states)
            self._untold = iter([each for turn in self._ping_turns for each in turn])
        began = time.thread_time()
        if _do_some(self._untold, self._tell, began + _PIECE_S):
            self._untold = None
        took = time.thread_time() - began
        loop = asyncio.get_running_loop()
        if not self._feed_budget.spend(
            took, self._clock(), burst_s=_FEED_BURST_S, share=_FEED_SHARE
        ):
            # Also if there is no more to tell for now.
            self._feed_handle = loop.call_later(_FEED_REST_S, self._tell_feed)
        elif self._untold is not None:
            self._feed_handle = loop.call_soon(self._tell_feed)

    def _tell(self, connection: SubscriberConnection) -> None:
        connection.reader.tell_feed(self._feed_frame, self._feed_noticed)

    # Messages

    def received(self, channel: Channel, frame_bytes: int) -> None:
        """Note that a channel got a frame of this many bytes; :meth:`received_all` follows."""
        self._dirty[channel] = None
        self._waiting_bytes += frame_bytes

    def received_all(self) -> None:
        """Write all that is due, now or after the last flush's rest."""
        if self._dirty and self._may_begin() and not self._rest():
            self.flush()

    def changed(self, channel: Channel) -> None:
        """Note that a channel has news, to be written in this turn of the loop or after a rest."""
        self._dirty[channel] = None
        self._again = True
        if self._may_begin() and not self._rest():
            self._flush_handle = asyncio.get_running_loop().call_soon(self.flush)

    def _may_begin(self) -> bool:
        """Whether no flush is under way or scheduled, or one rests although enough waits by now."""
        if self._unwritten is not None:
            return False
        return self._flush_handle is None or (self._resting and self._enough_waits())

    def _enough_waits(self) -> bool:
        kept_bytes = self.channels.limits.max_messages * _FRAME_MIN_BYTES
        return self._waiting_bytes >= min(_WAITING_MAX_BYTES, kept_bytes // 2)

    def _rest(self) -> bool:
        """Postpone the next flush if the last one took long; return whether it is postponed."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        rest = self._rested_at - self._clock()
        self._resting = rest > 0 and not self._enough_waits()
        if self._resting:
            self._flush_handle = asyncio.get_running_loop().call_later(rest, self.flush)
        return self._resting

    def flush(self) -> None:
        """Write to every subscriber of a changed channel what it has not got yet.

        After some ms the rest follows in the next turn of the loop.
        """
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        if self._unwritten is None:
            dirty, self._dirty = self._dirty, {}
            self._unwritten = _subscribers(dirty)
            self._waiting_bytes = 0
            self._flush_took = 0.0
            self._again = False
        self._flushing = True
        self.turn.resuming = False
        started = time.thread_time()
        finished = False
        try:
            finished = _do_some(self._unwritten, _advance, started + _PIECE_S)
        finally:
            # If a subscriber failed, the loop logs it, and the others follow.
            self.turn.clear()
            self.turn.resuming = True
            self._flushing = False
            # Of this thread's own time: what other threads took meanwhile is no reason to rest.
            self._flush_took += time.thread_time() - started
            if finished:
                self._flushed()
            else:
                self._flush_handle = asyncio.get_running_loop().call_soon(self.flush)

    def _flushed(self) -> None:
        """Rest after a flush, and begin the next one if that is due."""
        self._unwritten = None
        took = self._flush_took
        now = self._clock()
        self._share_time(took, now)
        rested_at = now + min(took * (1 / self._flush_share - 1), _REST_MAX_S)
        if not self._again:
            self._rested_at = rested_at
        if self._dirty and not self._rest():
            self._flush_handle = asyncio.get_running_loop().call_soon(self.flush)
        self._rested_at = rested_at

    def _share_time(self, took: float, now: float) -> None:
        """Set the share of flushes by what else the loop has done lately."""
        since, used, flushed = self._measured
        flushed += took
        if now - since >= _MEASURED_S:
            thread_time = time.thread_time()
            other = (thread_time - used - flushed) / (now - since)
            self._flush_share = max(_BUSY_SHARE - other, _FLUSH_SHARE_MIN)
            since, used, flushed = now, thread_time, 0.0
        self._measured = since, used, flushed

    def begin_turn(self) -> None:
        """Let readers that advance outside of a flush share their frames in this turn."""
        if not self._flushing and self._turn_handle is None:
            self._turn_handle = asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn_handle = None
        self.turn.clear()

    def stop(self) -> None:
        """Flush no more."""
        for handle in (self._flush_handle, self._feed_handle):
            if handle is not None:
                handle.cancel()

    # Slow clients

    def paused(self, connection: SubscriberConnection) -> None:
        """Watch a client whose transport is full, until it reads something."""
        self._stalled[connection] = (connection.unread_bytes(), self._clock())

    def resumed(self, connection: SubscriberConnection) -> None:
        """Continue with a client that has read what was written."""
        self._stalled.pop(connection, None)
        asyncio.get_running_loop().call_soon(connection.reader.advance_all)

    async def sweep(self) -> None:
        """Do what is due each second: close stalled clients, ping a share of the others."""
        now = self._clock()
        async for connection, (waiting, since) in over_turns(list(self._stalled.items())):
            if connection not in self._stalled:
                continue
            left = connection.unread_bytes()
            if left < waiting:
                self._stalled[connection] = (left, now)
            elif now - since >= self.limits.client_stall and connection.is_open:
                self.fault(connection, "stalled", f"read nothing for {now - since:.0f} s: 1013")
                connection.begin_close(TRY_AGAIN_LATER, "took nothing for too long")
        if now - self._expired_at >= _FRAMES_KEPT_S:
            self._expired_at = now
            self._frames.expire()
        # A turn of pings is due once every few seconds; several at once for a short interval.
        turn_s = self.limits.ping_interval / _PING_TURNS
        due = min(int((now - self._pinged_at) / turn_s), _PING_TURNS)
        self._pinged_at += due * turn_s
        if due == _PING_TURNS:
            self._pinged_at = now
        for _ in range(due):
            self._ping_turn = (self._ping_turn + 1) % _PING_TURNS
            async for connection in over_turns(list(self._ping_turns[self._ping_turn])):
                if connection.is_open and not connection.paused:
                    connection.transport.write(PING)


def _do_some(items: Iterator[T], act: Callable[[T], None], until: float) -> bool:
    """Act on items until this thread's time is ``until``, in s; return whether none is left."""
    for number, each in enumerate(items, 1):
        act(each)
        if not number % _ASK_EVERY and time.thread_time() >= until:
            return False
    return True


def _subscribers(channels: Iterable[Channel]) -> Iterator[Subscriber]:
    # Lists: subscribers come and go meanwhile.
    return (subscriber for channel in channels for subscriber in list(channel.subscribers))


def shown(name: bytes) -> str:
    """Write a channel's name for the log."""
    text = name[:100].decode(errors="replace")
    return f"{text}..." if len(name) > 100 else text
