"""What subscribers of the relay must get, byte by byte, and how far each is."""

from __future__ import annotations

import functools
import itertools
import socket
from collections.abc import Callable, Iterable

from benchmarks import relay_wire as wire
from benchmarks.relay_dialects import RELAY, Dialect

__all__ = ["Channel", "Stream", "StreamError", "Subscriber"]


class StreamError(Exception):
    """A subscriber got something else than what was published, or not all of it."""


class Stream:
    """What a subscriber gets: the bytes of all messages, and where each ends."""

    __slots__ = ("data", "ends")

    def __init__(self, frames: Iterable[bytes]) -> None:
        listed = list(frames)
        self.data = b"".join(listed)
        self.ends = list(itertools.accumulate(map(len, listed)))


class Channel:
    """One channel's messages, FINISHED the last, as they are published and as they arrive."""

    def __init__(self, number: int, messages: int, dialect: Dialect = RELAY) -> None:
        self.name = f"job_{number:05}"
        self._dialect = dialect
        fields = [*(wire.task(number, i) for i in range(messages)), wire.FINISHED]
        self.published = [dialect.published(self.name, one) for one in fields]
        self._texts = [wire.text(one) for one in fields]
        self.sent_at: list[float] = []

    @functools.cached_property
    def plain(self) -> Stream:
        """The stream of a connection without compression."""
        numbered = enumerate(self._texts, 1)
        return Stream(self._dialect.received(self.name, i, text) for i, text in numbered)

    @functools.cached_property
    def deflated(self) -> Stream:
        """The stream of a connection with it."""
        return Stream(wire.deflated(self._texts))


class Subscriber:
    """One WebSocket: what it must get, and how far it is."""

    __slots__ = (
        "channel",
        "count",
        "ends",
        "expected",
        "position",
        "receive",
        "rest",
        "socket",
        "target",
    )

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.expected = b""
        self.ends: list[int] = []
        self.position = 0
        self.count = 0  # of whole messages, kept where latencies are taken
        self.target = 0
        self.rest = b""  # of a control frame that came in pieces
        self.socket: socket.socket
        self.receive: Callable[[int], bytes]
