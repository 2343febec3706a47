"""Limits invalid tokens and sessions, by address and in all. Pure.

A valid one always passes, so nobody can lock others out; and with 256 random bits nobody guesses
one. The limit keeps guesses from costing much.
"""

from __future__ import annotations

from typing import Final

from monitor.transport.crowds import holder

__all__ = ["Attempts"]

# A burst, and how many follow in a minute.
_BY_ADDRESS: Final = 20
_IN_ALL: Final = 200
_PERIOD_S: Final = 60.0
_MAX_ADDRESSES: Final = 1000


class _Bucket:
    __slots__ = ("_at", "_left", "_size")

    def __init__(self, size: int, now: float) -> None:
        self._size = size
        self._left = float(size)
        self._at = now

    def take(self, now: float) -> float:
        """Take one; return the s to wait for the next if there is none."""
        rate = self._size / _PERIOD_S
        self._left = min(float(self._size), self._left + max(0.0, now - self._at) * rate)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / rate
        self._left -= 1
        return 0.0

    def give_back(self) -> None:
        """Undo a :meth:`take`."""
        self._left = min(float(self._size), self._left + 1)


class Attempts:
    """Counts failures; ``now`` is in s on a clock that does not go back."""

    def __init__(self) -> None:
        self.failed = 0
        """How many there were."""
        self._all: _Bucket | None = None
        self._addresses: dict[str, _Bucket] = {}

    def fail(self, address: str, now: float) -> float:
        """Count a failure; return 0, or how many s this address has to wait."""
        self.failed += 1
        source = holder(address)
        bucket = self._addresses.pop(source, None) or _Bucket(_BY_ADDRESS, now)
        if len(self._addresses) >= _MAX_ADDRESSES:
            del self._addresses[next(iter(self._addresses))]
        self._addresses[source] = bucket
        wait = bucket.take(now)
        if wait:
            return wait
        if self._all is None:
            self._all = _Bucket(_IN_ALL, now)
        return self._all.take(now)

    def forgive(self, address: str) -> None:
        """Undo a failure that turned out not to be one, and did not have to wait."""
        self.failed -= 1
        bucket = self._addresses.get(holder(address))
        for each in (bucket, self._all):
            if each is not None:
                each.give_back()
