"""One channel: its messages, its end, and its subscribers; no I/O, no clock.

A channel is the history of its frames in the old protocol, which is all that most channels ever
need: the frames of the recovering protocol are made from them
(:mod:`monitor.relay.frame_cache`).
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_right
from typing import Protocol

from monitor.relay.history import History

__all__ = ["CHANNEL_BYTES", "MESSAGE_BYTES", "Channel", "End", "Subscriber"]

# What a channel costs in addition to its messages: objects, dictionary entries (measured).
CHANNEL_BYTES = 1100
# What a message costs in addition to its frame: where it ends, and when it came.
MESSAGE_BYTES = 16


class End(enum.Enum):
    """How a channel ended."""

    FINISHED = "finished"
    # a FAILED that nothing followed
    FAILED = "failed"
    # no message came for too long
    IDLE = "idle"


class Subscriber(Protocol):
    """A subscriber of a channel: a position in it, and a way to write from there."""

    channel: Channel | None
    position: int

    def advance(self) -> None:
        """Write the messages from the position to the end, as far as the client reads."""


class Channel(History):
    """A channel's messages, in the frames of the old protocol.

    ``epoch`` names this life of the channel: an epoch and a position always mean the same
    message. ``ancestors`` are earlier epochs, each with the position up to which its messages are
    the same as here (a crash lost what followed).
    """

    __slots__ = (
        "_times",
        "ancestors",
        "end_kind",
        "epoch",
        "failed",
        "head",
        "key",
        "name",
        "saved",
        "subscribers",
    )

    def __init__(self, name: bytes, epoch: str = "", *, first: int = 0) -> None:
        super().__init__(first)
        self.name = name
        self.epoch = epoch
        self.ancestors: tuple[tuple[str, int], ...] = ()
        self.end_kind: End | None = None
        # Whether FAILED is the last command so far.
        self.failed = False
        self.subscribers: set[Subscriber] = set()
        # How its messages begin in the recovering protocol, once one was made.
        self.head = b""
        # For each message in _data, when it came, in s since the epoch.
        self._times = array("d")
        # Its key in the history file (0: none yet), and the position up to which it is saved.
        self.key = 0
        self.saved = first

    @property
    def ended(self) -> bool:
        """Whether no more messages will come."""
        return self.end_kind is not None

    @property
    def size_bytes(self) -> int:
        """How much memory the messages take, bookkeeping included."""
        return len(self._data) + MESSAGE_BYTES * len(self._ends)

    def append(self, frame: bytes, at: float = 0.0) -> int:
        """Add a message that came at ``at``, in s since the epoch; return how many are kept."""
        data, ends = self._data, self._ends
        data += frame
        ends.append(self._base + len(data))
        self._times.append(at)
        return len(ends) - self._dead

    def extend(self, frames: bytes, sizes: array[int], times: array[float]) -> None:
        """Add messages at the end: their joined frames, and the size and time of each."""
        end = self._base + len(self._data)
        for size in sizes:
            end += size
            self._ends.append(end)
        self._data += frames
        self._times.extend(times)

    def cut(self, position: int, limit_bytes: int) -> tuple[bytes, array[int], array[float]]:
        """Return messages from ``position`` on, at least one, in the form of :meth:`extend`."""
        frames, stop = self.read(position, limit_bytes)
        index = position - self.first + self._dead
        sizes = array("I")
        begin = self._ends[index - 1] if index else self._base
        for end in self._ends[index : index + stop - position]:
            sizes.append(end - begin)
            begin = end
        return bytes(frames), sizes, self.times(position, stop)

    def restart(self, first: int) -> None:
        """Make an empty channel begin at a position; nobody may have read it yet."""
        History.__init__(self, first)
        self._times = array("d")
        self.saved = first

    def times(self, start: int, stop: int) -> array[float]:
        """Return when the messages from ``start`` up to ``stop`` came; both must be kept."""
        offset = self._dead - self.first
        return self._times[start + offset : stop + offset]

    def position_at(self, time: float) -> int:
        """Return the position after the last message kept that came at ``time`` or before."""
        return self.first - self._dead + bisect_right(self._times, time, self._dead)

    def compact(self) -> None:
        """Delete what is trimmed."""
        dead = self._dead
        super().compact()
        if dead:
            self._times = self._times[dead:]

    def resume(self, epoch: str, seq: int) -> tuple[int, str]:
        """Return where a reader of ``seq`` messages of ``epoch`` continues, and what is wrong.

        The second is empty if exactly the next message follows. Otherwise it is ``epoch`` (not
        this life of the channel), ``ahead`` (of what this relay knows) or ``trimmed`` (the next
        message is no longer kept), and the position is the first that is kept.
        """
        if epoch == self.epoch:
            known = self.end
        else:
            known = next((end for old, end in self.ancestors if old == epoch), -1)
        if known < 0:
            return self.first, "epoch"
        if seq > known:
            return self.first, "ahead"
        if seq < self.first:
            return self.first, "trimmed"
        return seq, ""
