"""Detects jumps of the clock, so that a wrong clock does not purge stored entries. Pure.

If the clock, or an NTP server, is set wrong, all entries seem older than the window. So a purge
only deletes entries that have also existed for a window by a second clock, which is never set.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Jumps"]

# More than slewing and rounding amount to between two purges.
_LEAST_S: Final = 10.0


class Jumps:
    """By how much the clock is ahead of a steady one."""

    def __init__(self) -> None:
        # (offset, last seen), with increasing offsets: earlier larger ones do not matter.
        self._offsets: deque[tuple[float, float]] = deque(maxlen=1000)

    def look(self, now: float, steady: float) -> float:
        """Note both clocks, in s; return by how much the first has jumped since the last call.

        A jump back is negative; without a jump it is 0.
        """
        offset, by = now - steady, 0.0
        if self._offsets:
            last, _ = self._offsets.pop()
            self._offsets.append((last, steady))
            by = offset - last
            if abs(by) < _LEAST_S:
                offset, by = last, 0.0
        while self._offsets and self._offsets[-1][0] >= offset:
            self._offsets.pop()
        self._offsets.append((offset, steady))
        return by

    def ahead_s(self, kept_s: float, steady: float) -> float:
        """Return by how much the clock jumped ahead in the last ``kept_s``."""
        least = next(offset for offset, seen in self._offsets if steady - seen <= kept_s)
        return self._offsets[-1][0] - least
