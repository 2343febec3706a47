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
# More are counted as fewer and larger ones: those of one 32nd of the longest window as if all were
# as new as its last.
_MOST: Final = 64
_PIECES: Final = 32


class Jumps:
    """The clock's jumps ahead, but those that it took back."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._ahead: deque[tuple[float, float]] = deque()

    def look(self, now: float, steady: float, *, longest_s: float) -> float:
        """Take note of both clocks, in s; return by how much the first has jumped since last time.

        Jumps of more than ``longest_s`` ago are forgotten, which no window reaches. The result is
        below 0 for a jump back, and 0 where there was none. A jump before the first look
        is not seen.
        """
        while self._ahead and steady - self._ahead[0][0] >= longest_s:
            self._ahead.popleft()
        last, self._last = self._last, (now, steady)
        by = 0.0 if last is None else (now - last[0]) - (steady - last[1])
        if abs(by) < _LEAST_S:
            return 0.0
        if by > 0:
            self._ahead.append((steady, by))
            if len(self._ahead) > _MOST:
                self._make_fewer(longest_s / _PIECES)
        else:
            self._take_back(-by)
        return by

    def ahead_s(self, kept_s: float, steady: float) -> float:
        """Return by how much the clock jumped ahead in the last ``kept_s`` and is ahead still.

        What it said ``kept_s`` ago is as much less than what it says now, and ``kept_s``.
        """
        return sum(by for at, by in self._ahead if steady - at < kept_s)

    def _make_fewer(self, piece_s: float) -> None:
        """Make one of all jumps in a piece; it stays in that piece, however often this is done."""
        fewer: deque[tuple[float, float]] = deque()
        for at, by in self._ahead:
            same = bool(fewer) and fewer[-1][0] // piece_s == at // piece_s
            fewer.append((at, by + fewer.pop()[1] if same else by))
        self._ahead = fewer

    def _take_back(self, by: float) -> None:
        while self._ahead and by > 0:
            at, last = self._ahead.pop()
            if last > by:
                self._ahead.append((at, last - by))
            by -= last
