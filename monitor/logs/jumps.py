"""Jumps of the clock: what is stored must not be purged for one that is set back later. Pure.

A clock that is set wrong, or an NTP server that is, makes all that is stored look older than the
window. So a purge goes by what the clock said a window ago, as a second clock, which nobody sets,
tells: nothing is deleted before it was there for a window by both.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Jumps"]

# What slewing and rounding come to between two purges is less.
_LEAST_S: Final = 10.0
# More in one window are counted as fewer and larger ones, the older as if they were as new.
_MOST: Final = 64


class Jumps:
    """The clock's jumps ahead, but those that it took back."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._ahead: deque[tuple[float, float]] = deque()

    def look(self, now: float, steady: float) -> float:
        """Take note of both clocks, in s; return by how much the first has jumped since last time.

        That is below 0 for a jump back, and 0 where there was none. A jump before the first look
        is not seen.
        """
        last, self._last = self._last, (now, steady)
        by = 0.0 if last is None else (now - last[0]) - (steady - last[1])
        if abs(by) < _LEAST_S:
            return 0.0
        if by > 0:
            self._ahead.append((steady, by))
            if len(self._ahead) > _MOST:
                (_, first), (at, second) = self._ahead.popleft(), self._ahead.popleft()
                self._ahead.appendleft((at, first + second))
        else:
            self._take_back(-by)
        return by

    def ahead_s(self, kept_s: float, steady: float) -> float:
        """Return by how much the clock jumped ahead in the last ``kept_s`` and is ahead still.

        What it said ``kept_s`` ago is as much less than what it says now, and ``kept_s``.
        """
        return sum(by for at, by in self._ahead if steady - at < kept_s)

    def _take_back(self, by: float) -> None:
        while self._ahead and by > 0:
            at, last = self._ahead.pop()
            if last > by:
                self._ahead.append((at, last - by))
            by -= last
