"""How much a client may send: a token bucket with time as an argument."""

from __future__ import annotations

__all__ = ["Allowance"]


class Allowance:
    """A token bucket that lets a large request through whole and makes up for it after.

    Up to ``burst`` units are saved up at ``rate`` units a second. A request passes while
    anything is saved, whatever its size, and may leave a debt: so none is ever too large to
    pass at all, and in the long run no more than ``rate`` do.
    """

    __slots__ = ("_at", "_saved", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._saved = burst
        self._at = now

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next request may pass; 0 where it may at once."""
        # A clock that went back costs nobody anything.
        self._saved = min(self.burst, self._saved + max(0.0, now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._saved > 0 else (1.0 - self._saved) / self.rate

    def spend(self, amount: float) -> None:
        """Count what passed; call :meth:`wait_s` before."""
        self._saved -= amount
