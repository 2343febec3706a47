"""Rate limits of clients: token buckets with time as an argument."""

from __future__ import annotations

from monitor.logs.settings import LogsSettings

__all__ = ["Allowance", "Allowances"]

_BURST_S = 2.0


class Allowance:
    """A token bucket that admits a large request at once and makes the next ones wait for it.

    It fills with ``rate`` units a second, up to two seconds' worth. A request is admitted if the
    bucket is not empty, and may leave a negative balance. So no request is too large, and in the
    long run no more than ``rate`` units a second are admitted.
    """

    __slots__ = ("_at", "_saved")

    def __init__(self, rate: float, now: float) -> None:
        self._saved = rate * _BURST_S
        self._at = now

    def wait_s(self, rate: float, now: float) -> float:
        """Return how long the next request has to wait, in s; 0 if it is admitted at once."""
        # A clock that goes back takes nothing away.
        self._saved = min(rate * _BURST_S, self._saved + max(0.0, now - self._at) * rate)
        self._at = now
        return 0.0 if self._saved > 0 else (1.0 - self._saved) / rate

    def spend(self, amount: float) -> None:
        """Subtract an admitted request; call :meth:`wait_s` before."""
        self._saved -= amount


class Allowances:
    """The limits of one connection or one token: entries and bytes, from the settings."""

    __slots__ = ("bytes", "entries")

    def __init__(self, settings: LogsSettings, now: float) -> None:
        self.entries = Allowance(settings.max_entries_per_second, now)
        self.bytes = Allowance(settings.max_bytes_per_second, now)

    def wait_s(self, settings: LogsSettings, now: float) -> float:
        """Return how long the next request has to wait, in s, with the current settings."""
        return max(
            self.entries.wait_s(settings.max_entries_per_second, now),
            self.bytes.wait_s(settings.max_bytes_per_second, now),
        )
