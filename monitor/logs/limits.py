"""Rate limits of clients: token buckets with time as an argument."""

from __future__ import annotations

from monitor.logs.settings import LogsSettings

__all__ = ["Allowance", "Allowances"]

_BURST_S = 2.0


class Allowance:
    """A token bucket that admits a large request at once and makes the next ones wait for it.

    It fills with ``rate`` units a second, up to ``burst`` units. A request is admitted if the
    bucket is not empty, and may leave a negative balance. So no request is too large, and in the
    long run no more than ``rate`` units a second are admitted.
    """

    __slots__ = ("_at", "_saved", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._saved = burst
        self._at = now

    def wait_s(self, now: float) -> float:
        """Return how long the next request has to wait, in s; 0 if it is admitted at once."""
        # A clock that goes back takes nothing away.
        self._saved = min(self.burst, self._saved + max(0.0, now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._saved > 0 else (1.0 - self._saved) / self.rate

    def spend(self, amount: float) -> None:
        """Subtract an admitted request; call :meth:`wait_s` before."""
        self._saved -= amount

    def change(self, rate: float, burst: float) -> None:
        """Change the rate; the balance stays, up to the new burst."""
        self.rate, self.burst = rate, burst
        self._saved = min(self._saved, burst)


class Allowances:
    """The limits of one connection or one token: entries and bytes, from the settings."""

    __slots__ = ("_settings", "bytes", "entries")

    def __init__(self, settings: LogsSettings, now: float) -> None:
        self._settings = settings
        entries, size = _rates(settings)
        self.entries = Allowance(entries, entries * _BURST_S, now)
        self.bytes = Allowance(size, size * _BURST_S, now)

    def wait_s(self, settings: LogsSettings, now: float) -> float:
        """Return how long the next request has to wait, in s, with the current settings."""
        if settings is not self._settings:
            self._settings = settings
            entries, size = _rates(settings)
            self.entries.change(entries, entries * _BURST_S)
            self.bytes.change(size, size * _BURST_S)
        return max(self.entries.wait_s(now), self.bytes.wait_s(now))


def _rates(settings: LogsSettings) -> tuple[float, float]:
    return float(settings.max_entries_per_second), float(settings.max_bytes_per_second)
