"""Whether brokers are connected, and when they were not; no I/O, no clock.

:class:`Peers` interprets the events of ZeroMQ's socket monitor; :class:`Feed` remembers when the
feed was interrupted, so that a channel's readers learn where messages may be missing. Times are s
since the epoch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from monitor.relay.channel import Channel

__all__ = ["Feed", "Gap", "Outage", "Peers", "SteadyTime"]

_OUTAGES_KEPT = 100
# By how much two times differ at least; a double can represent it until the year 2200.
_TICK_S = 1e-6


class SteadyTime:
    """The time of day (s since the epoch), but strictly increasing.

    Times decide where among a channel's messages an outage was, even if the clock is set back:
    until it has caught up, each time is one tick after the latest.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._latest = 0.0

    def __call__(self) -> float:
        """Return the time now."""
        now, tick = self._time(), self._latest + _TICK_S
        self._latest = now if now > tick else tick
        return self._latest

    def now(self) -> float:
        """Return the time of day as it is."""
        return self._time()

    def not_before(self, latest: float) -> None:
        """Return only times after this one, which is from an earlier run."""
        self._latest = max(self._latest, latest)


class Peers:
    """Which connections of a listening socket are brokers: those whose handshake succeeded.

    The monitor's events name a descriptor when a connection is accepted and when it is lost,
    but not when its handshake succeeds (libzmq, zmq_socket_monitor(3)); a failed handshake is
    reported right before its disconnection. So while several connections are in their handshake,
    a success may belong to any of them, and only the number of brokers is known.
    """

    def __init__(self) -> None:
        self._greeting: set[int] = set()
        self._brokers: set[int] = set()
        # How many of those in _greeting have succeeded.
        self._unclaimed = 0
        self._failed = False

    @property
    def count(self) -> int:
        """How many brokers are connected."""
        return len(self._brokers) + self._unclaimed

    def accepted(self, descriptor: int) -> None:
        """A connection was accepted."""
        self._greeting.add(descriptor)

    def succeeded(self) -> None:
        """Some handshake succeeded."""
        if self._unclaimed < len(self._greeting):
            self._unclaimed += 1
        self._settle()

    def failed(self) -> None:
        """The handshake of the connection that is lost next failed."""
        self._failed = True

    def disconnected(self, descriptor: int) -> bool:
        """A connection is lost; return whether it was a broker's."""
        failed, self._failed = self._failed, False
        if descriptor in self._brokers:
            self._brokers.discard(descriptor)
            return True
        self._greeting.discard(descriptor)
        was_broker = not failed and self._unclaimed > 0
        if was_broker:
            self._unclaimed -= 1
        self._settle()
        return was_broker

    def _settle(self) -> None:
        if self._unclaimed and self._unclaimed == len(self._greeting):
            self._brokers |= self._greeting
            self._greeting.clear()
            self._unclaimed = 0


class Outage(NamedTuple):
    """A broker was lost at ``since``; one connected again at ``until`` (None: not yet)."""

    since: float
    until: float | None


class Gap(NamedTuple):
    """Messages may be missing after message ``seq`` of a channel: there was an outage."""

    seq: int
    since: float
    until: float | None


class Feed:
    """When brokers were lost, and when they were back."""

    def __init__(self) -> None:
        self.brokers = 0
        self.outages: deque[Outage] = deque(maxlen=_OUTAGES_KEPT)
        # How often the feed was interrupted, restarts included.
        self.interruptions = 0
        # Whether outages changed since they were saved.
        self.unsaved = False

    @property
    def up(self) -> bool:
        """Whether any broker is connected."""
        return self.brokers > 0

    def lost(self, at: float) -> None:
        """A broker is lost, or was lost while the relay was down."""
        self.interruptions += 1
        self.unsaved = True
        # Even if another outage is open: of several brokers one may not come back, and each loss
        # concerns the channels that began since then.
        self.outages.append(Outage(at, None))

    def back(self, at: float) -> None:
        """A broker connected."""
        self.unsaved = True
        place = len(self.outages)
        while place and self.outages[place - 1].until is None:
            place -= 1
            self.outages[place] = self.outages[place]._replace(until=at)

    def restore(self, outages: Iterable[tuple[float, float | None]], saved_at: float) -> None:
        """Take the outages of an earlier run, which ended at ``saved_at`` at the latest."""
        for since, until in outages:
            self.outages.append(Outage(since, saved_at if until is None else until))
        self.lost(saved_at)

    def gaps(self, channel: Channel, position: int) -> Iterator[Gap]:
        """Yield where a channel may lack messages, from ``position`` on.

        An outage concerns a channel if it began after the first message that is kept and, if the
        channel has finished, before the end.
        """
        last: Gap | None = None
        for outage in self.outages:
            seq = channel.position_at(outage.since)
            finished = channel.ended and seq == channel.end
            if not channel.first < seq or seq < position or finished:
                continue
            if last is not None and (
                last.seq == seq and (last.until is None or last.until >= outage.since)
            ):
                # One interruption: a restart while no broker was there, or several losses at once.
                last = last._replace(until=outage.until)
                continue
            if last is not None:
                yield last
            last = Gap(seq, *outage)
        if last is not None:
            yield last
