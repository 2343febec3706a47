"""Jumps of the clock: what is stored must not be purged for one that is set back later. Pure.

A clock that is set wrong, or an NTP server that is, makes all that is stored look older than the
window. So a purge deletes nothing before it was there for a window by a second clock, too, which
nobody sets.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Jumps"]

# What slewing and rounding come to between two purges is less.
_LEAST_S: Final = 10.0


class Jumps:
    """By how much the clock was ahead of the steady one, and when that was seen last."""

    def __init__(self) -> None:
        # From the least on: what was further ahead before is of no interest.
        self._offsets: deque[tuple[float, float]] = deque(maxlen=1000)

    def look(self, now: float, steady: float) -> float:
        """Take note of both clocks, in s; return by how much the first has jumped since last time.

        The result is below 0 for a jump back, and 0 where there was none.
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
        """Return by how much the clock is ahead of what it was in the last ``kept_s``."""
        least = next(offset for offset, seen in self._offsets if steady - seen <= kept_s)
        return self._offsets[-1][0] - least
