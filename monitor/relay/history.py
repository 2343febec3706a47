"""WebSocket frames, one after the other, and where each ends; no I/O, no clock.

A position is the number of a frame, counted from the first one ever: frames from
:attr:`History.first` on are kept, :attr:`History.end` is the next to come.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

from monitor.transport.frames import HEADER_BYTES

__all__ = ["History"]

# Trimmed frames are deleted once there are at least so many, and a quarter of all.
_DEAD_AT_LEAST = 64


class History:
    """Frames ``first`` (kept) to ``end`` (next to come)."""

    __slots__ = ("_base", "_data", "_dead", "_ends", "first")

    def __init__(self, first: int = 0) -> None:
        self.first = first
        # Frames, one after the other; byte _base of the whole stream is _data[0].
        self._data = bytearray()
        self._base = 0
        # For each frame in _data, where it ends in the whole stream.
        self._ends = array("Q")
        # How many frames at the front of _data are trimmed but not deleted yet.
        self._dead = 0

    @property
    def end(self) -> int:
        """The position after the last frame."""
        return self.first - self._dead + len(self._ends)

    def __len__(self) -> int:
        return len(self._ends) - self._dead

    @property
    def size_bytes(self) -> int:
        """How much memory the frames take, bookkeeping included."""
        return len(self._data) + 8 * len(self._ends)

    def keeps(self, position: int) -> bool:
        """Whether the frame at a position is kept."""
        return self.first <= position < self.end

    def append(self, frame: bytes) -> int:
        """Add one frame at the end; return how many are kept."""
        self._data += frame
        self._ends.append(self._base + len(self._data))
        return len(self)

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

    def compact(self) -> None:
        """Delete what is trimmed."""
        if self._dead:
            cut = self._ends[self._dead - 1]
            # New objects, so that the memory is freed.
            self._data = self._data[cut - self._base :]
            self._ends = self._ends[self._dead :]
            self._base = cut
            self._dead = 0
