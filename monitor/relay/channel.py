"""One channel: its messages, its end, and its subscribers; no I/O, no clock.

A position is the number of a frame, counted from the first one ever: frames from
:attr:`Channel.first` on are kept, :attr:`Channel.end` is the next to come.

A channel is the history of its frames in the old protocol, which is all that most channels ever
need: the frames of the recovering protocol are made from them
(:mod:`monitor.relay.frame_cache`).
"""

from __future__ import annotations

import enum
from array import array
from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import Protocol

from monitor.transport.frames import HEADER_BYTES

__all__ = [
    "ANCESTORS_KEPT",
    "CHANNEL_BYTES",
    "MESSAGE_BYTES",
    "SUBSCRIPTION_BYTES",
    "Channel",
    "End",
    "Subscriber",
]

# What a channel costs in addition to its messages: objects, dictionary entries, and a name of
# usual length (measured).
CHANNEL_BYTES = 1100
_USUAL_NAME_BYTES = 64
# What a subscription costs: the position of the client, and its places in sets and dictionaries
# (measured).
SUBSCRIPTION_BYTES = 600
# What a message costs in addition to its frame: where it ends, and when it came.
MESSAGE_BYTES = 16
# How many earlier epochs a channel keeps; each is a crash, or another relay that took over.
ANCESTORS_KEPT = 4
# Trimmed frames are deleted once there are at least this many, and a quarter of all.
_DEAD_AT_LEAST = 64


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

    def give_up(self) -> None:
        """End the subscription: no message came for too long."""

    def moved(self, position: int) -> None:
        """Continue at another position: the channel continues in another way than it seemed."""


class Channel:
    """A channel's messages, in the frames of the old protocol.

    ``epoch`` names this life of the channel: an epoch and a position always mean the same
    message. ``ancestors`` are earlier epochs, each with the position up to which its messages are
    the same as here (a crash lost what followed, or another relay continued from there).
    """

    __slots__ = (
        "_base",
        "_data",
        "_dead",
        "_ends",
        "_times",
        "ancestors",
        "begun",
        "end_kind",
        "epoch",
        "failed",
        "first",
        "head",
        "is_empty",
        "key",
        "name",
        "saved",
        "subscribers",
    )

    def __init__(self, name: bytes, epoch: str = "", *, first: int = 0) -> None:
        self.name = name
        self.epoch = epoch
        self.ancestors: tuple[tuple[str, int], ...] = ()
        # Whether this epoch was published.
        self.begun = False
        self.end_kind: End | None = None
        # Whether FAILED is the last command so far.
        self.failed = False
        # Whether it never had a message, or was emptied.
        self.is_empty = True
        self.subscribers: set[Subscriber] = set()
        # How its messages begin in the recovering protocol, once one was made.
        self.head = b""
        # Its key in the history file (0: none yet).
        self.key = 0
        self.restart(first)

    def restart(self, first: int) -> None:
        """Make an empty channel begin at a position; nobody may have read it yet."""
        self.first = first
        # The position up to which it is saved.
        self.saved = first
        # Frames, one after the other; byte _base of the whole stream is _data[0].
        self._data = bytearray()
        self._base = 0
        # For each frame in _data, where it ends in the whole stream.
        self._ends = array("Q")
        # And when it came, in s since the epoch.
        self._times = array("d")
        # How many frames at the front of _data are trimmed but not deleted yet.
        self._dead = 0

    @property
    def ended(self) -> bool:
        """Whether no more messages will come."""
        return self.end_kind is not None

    @property
    def fixed_bytes(self) -> int:
        """How much memory the channel takes in addition to its messages and subscriptions."""
        return CHANNEL_BYTES + max(0, len(self.name) - _USUAL_NAME_BYTES)

    @property
    def size_bytes(self) -> int:
        """How much memory the messages take, bookkeeping included."""
        return len(self._data) + MESSAGE_BYTES * len(self._ends)

    @property
    def end(self) -> int:
        """The position after the last frame."""
        return self.first - self._dead + len(self._ends)

    def __len__(self) -> int:
        return len(self._ends) - self._dead

    def keeps(self, position: int) -> bool:
        """Whether the frame at a position is kept."""
        return self.first <= position < self.end

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

    def read(self, position: int, limit_bytes: int) -> tuple[bytearray, int]:
        """Return the frames from ``position`` on, and the position after them.

        At most ``limit_bytes``, but at least one frame. The position must be kept
        (``first <= position < end``).
        """
        ends, base = self._ends, self._base
        index = position - self.first + self._dead
        start = ends[index - 1] if index else base
        stop_index = len(ends)
        if ends[-1] - start > limit_bytes:
            stop_index = max(bisect_right(ends, start + limit_bytes, index), index + 1)
        stop = ends[stop_index - 1]
        return self._data[start - base : stop - base], position + stop_index - index

    def payloads(self, start: int, stop: int) -> list[bytearray]:
        """Return what is in each frame from ``start`` up to ``stop``; both must be kept."""
        ends, base, data = self._ends, self._base, self._data
        index = start - self.first + self._dead
        begin = (ends[index - 1] if index else base) - base
        found = []
        for place in range(index, index + stop - start):
            end = ends[place] - base
            found.append(data[begin + HEADER_BYTES[data[begin + 1]] : end])
            begin = end
        return found

    def block(self, position: int, size_bytes: int) -> tuple[int, bool]:
        """Return where the block ends that ``position`` is in, and whether it begins there.

        Blocks of ``size_bytes`` divide the whole stream, so they are the same for every reader; a
        frame is in the block of its first byte. The position must be kept.
        """
        ends = self._ends
        index = position - self.first + self._dead
        start = ends[index - 1] if index else self._base
        number = start // size_bytes
        before = ends[index - 2] if index > 1 else self._base
        begins = position == self.first or before // size_bytes != number
        stop = bisect_left(ends, (number + 1) * size_bytes, index) + 1
        return position + min(stop, len(ends)) - index, begins

    def trim(self, count: int) -> None:
        """Drop the ``count`` oldest frames."""
        self.first += count
        self._dead += count
        dead = self._dead
        if dead >= len(self._ends) or (dead >= _DEAD_AT_LEAST and dead * 4 >= len(self._ends)):
            self.compact()

    def cut_back(self, position: int) -> None:
        """Drop the frames from ``position`` on; none if there are none."""
        if position >= self.end:
            return
        kept = max(position - self.first + self._dead, self._dead)
        cut = self._ends[kept - 1] if kept else self._base
        del self._data[cut - self._base :]
        del self._ends[kept:]
        del self._times[kept:]
        self.saved = min(self.saved, self.end)

    def continue_as(self, epoch: str, ancestors: tuple[tuple[str, int], ...]) -> None:
        """Continue under another epoch; ``ancestors`` say up to where earlier ones are the same."""
        self.epoch = epoch
        self.begun = False
        self.ancestors = ancestors[-ANCESTORS_KEPT:]
        self.head = b""

    def compact(self) -> None:
        """Delete what is trimmed."""
        if self._dead:
            cut = self._ends[self._dead - 1]
            # New objects, so that the memory is freed.
            self._data = self._data[cut - self._base :]
            self._ends = self._ends[self._dead :]
            self._times = self._times[self._dead :]
            self._base = cut
            self._dead = 0

    def cut(self, position: int, limit_bytes: int) -> tuple[bytes, array[int], array[float]]:
        """Return messages from ``position`` on, at least one, in the form of :meth:`extend`."""
        frames, stop = self.read(position, limit_bytes)
        index = position - self.first + self._dead
        begin = self._ends[index - 1] if index else self._base
        bounds = pairwise([begin, *self._ends[index : index + stop - position]])
        sizes = array("I", [end - start for start, end in bounds])
        return bytes(frames), sizes, self.times(position, stop)

    def times(self, start: int, stop: int) -> array[float]:
        """Return when the messages from ``start`` up to ``stop`` came; both must be kept."""
        offset = self._dead - self.first
        return self._times[start + offset : stop + offset]

    def position_at(self, time: float) -> int:
        """Return the position after the last message kept that came at ``time`` or before."""
        return self.first - self._dead + bisect_right(self._times, time, self._dead)

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
