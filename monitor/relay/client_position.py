"""A client's position in a channel over any connections: text in, events out; no I/O.

The events bring every message of a channel once and in order, or say where that is not so:
:class:`Reset` if the relay could not continue exactly there, :class:`Gap` if the relay itself may
have missed messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Away",
    "End",
    "Event",
    "Feed",
    "Gap",
    "Message",
    "NotARelayError",
    "Position",
    "Refused",
    "Reset",
    "Unknown",
    "read_message",
]


@dataclass(frozen=True, slots=True)
class Message:
    """A message; ``time`` is s since the Unix epoch."""

    channel: str
    data: dict[str, Any]
    seq: int
    epoch: str | None = None
    time: float | None = None

    @property
    def text(self) -> str:
        """The message in the old protocol."""
        return json.dumps(self.data)


@dataclass(frozen=True, slots=True)
class Reset:
    """What was delivered so far may lack messages; message ``seq + 1`` of ``epoch`` follows.

    ``anew`` is True if it is another life of the channel, whose messages count from the beginning
    and may repeat earlier ones.
    """

    channel: str
    seq: int
    anew: bool
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages may be missing after message ``seq``: the relay had lost a broker."""

    channel: str
    seq: int
    since: float
    until: float | None


@dataclass(frozen=True, slots=True)
class Feed:
    """The state of the feed: ``up``, ``down`` (no broker) or ``lost`` (one of several brokers)."""

    state: str
    brokers: int


@dataclass(frozen=True, slots=True)
class End:
    """A channel ended, ``finished`` or not; ``reason`` is ``failed`` or ``idle`` if known."""

    channel: str
    finished: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The relay does not serve this channel."""

    channel: str
    problem: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The relay has no message of this channel: it did not begin, ended long ago, or is a typo."""

    channel: str


@dataclass(frozen=True, slots=True)
class Away:
    """The client is not connected; it tries again in ``delay_s``."""

    problem: str
    delay_s: float


Event = Message | Reset | Gap | Feed | End | Refused | Unknown | Away


class NotARelayError(Exception):
    """A text is not a message of a relay; the error shows how it begins."""


def read_message(text: str | bytes) -> dict[str, Any]:
    """Return a message of a relay, or raise NotARelayError."""
    try:
        message = json.loads(text)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise NotARelayError(f"not a relay's message: {text[:80]!r}")
    return message


class Position:
    """A client's position in a channel, with the recovering protocol."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._epoch: str | None = None
        self._seq = 0
        # Requests without an answer yet: messages before the last answer are outdated.
        self._asked = 0
        self._gaps: set[tuple[int, float]] = set()

    def disconnected(self) -> None:
        """Forget the requests: a lost connection brings no answers."""
        self._asked = 0

    def request(self) -> str:
        """Return what to send to get what is missing."""
        self._asked += 1
        request: dict[str, Any] = {"type": "subscribe", "channel": self.channel}
        if self._epoch is not None:
            request["after"] = {"epoch": self._epoch, "seq": self._seq}
        return json.dumps(request)

    def take(self, message: dict[str, Any]) -> Iterator[Event]:
        """Yield what a message about this channel means. Raises NotARelayError."""
        try:
            yield from self._take(message)
        except (KeyError, TypeError, ValueError):
            raise NotARelayError(f"not a relay's message: {str(message)[:80]}") from None

    def _take(self, message: dict[str, Any]) -> Iterator[Event]:
        kind = message["type"]
        if kind == "error":
            self._asked = max(0, self._asked - 1)
            yield Refused(self.channel, str(message.get("message", message["code"])))
            return
        if kind == "subscribed":
            self._asked = max(0, self._asked - 1)
            if not self._asked:
                yield from self._subscribed(message)
            return
        if self._asked:
            return
        seq = int(message["seq"])
        if kind == "message":
            yield from self._message(message["epoch"], seq, message["time"], message["data"])
        elif kind == "messages":
            first, sent = float(message["time"]), zip(message["ms"], message["data"], strict=True)
            for number, (ms, data) in enumerate(list(sent), seq):
                yield from self._message(message["epoch"], number, first + ms / 1000, data)
        elif kind == "feed":
            gap = (seq, float(message["since"]))
            if gap not in self._gaps:
                self._gaps.add(gap)
                yield Gap(self.channel, *gap, message["until"])
        elif kind in ("finished", "failed"):
            yield End(self.channel, kind == "finished", str(message.get("reason", "")))

    def _message(self, epoch: str, seq: int, time: float, data: dict[str, Any]) -> Iterator[Event]:
        if epoch != self._epoch or seq <= self._seq:
            return
        if seq > self._seq + 1:
            # A relay never does this, but if it does, the reader must know.
            yield Reset(self.channel, seq - 1, anew=False, epoch=self._epoch)
        self._seq = seq
        yield Message(self.channel, dict(data), seq, self._epoch, round(float(time), 3))

    def _subscribed(self, message: dict[str, Any]) -> Iterator[Event]:
        epoch, seq = str(message["epoch"]), int(message["seq"])
        known = self._epoch
        lost = known is not None and message.get("recovered") is not True
        # The numbers of another epoch cannot be compared.
        anew = lost and (epoch != known or seq < self._seq)
        if not lost and known is not None and seq != self._seq:
            lost = anew = True
        self._epoch, self._seq = epoch, seq
        if anew:
            self._gaps.clear()
        if message.get("known") is False:
            yield Unknown(self.channel)
        if lost or (known is None and seq):
            yield Reset(self.channel, seq, anew=anew, epoch=epoch)
