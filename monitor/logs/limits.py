"""How much a client may send: token buckets with time as an argument."""

from __future__ import annotations

from monitor.logs.settings import LogsSettings

__all__ = ["Allowance", "Allowances"]

_BURST_S = 2.0


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

    def change(self, rate: float, burst: float) -> None:
        """Go on at another rate; what is saved is kept as far as it may be, and a debt too."""
        self.rate, self.burst = rate, burst
        self._saved = min(self._saved, burst)


class Allowances:
    """What one connection, or one token, may send: entries and bytes, as the settings say."""

    __slots__ = ("_settings", "bytes", "entries")

    def __init__(self, settings: LogsSettings, now: float) -> None:
        self._settings = settings
        entries, size = _rates(settings)
        self.entries = Allowance(entries, entries * _BURST_S, now)
        self.bytes = Allowance(size, size * _BURST_S, now)

    def wait_s(self, settings: LogsSettings, now: float) -> float:
        """Return the seconds until the next request may pass, under the settings in force."""
        if settings is not self._settings:
            self._settings = settings
            entries, size = _rates(settings)
            self.entries.change(entries, entries * _BURST_S)
            self.bytes.change(size, size * _BURST_S)
        return max(self.entries.wait_s(now), self.bytes.wait_s(now))


def _rates(settings: LogsSettings) -> tuple[float, float]:
    return float(settings.max_entries_per_second), float(settings.max_bytes_per_second)
