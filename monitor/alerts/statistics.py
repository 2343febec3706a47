"""Counters of the alerts part, for ``/metrics``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from monitor.metrics import Histogram, Metric

__all__ = ["Statistics"]


class Statistics:
    """Counters since the start; ``open`` maps rules to open incidents, as last read."""

    def __init__(self) -> None:
        self.open: Mapping[str, int] = {}
        self.opened = 0
        self.resolved = 0
        self.waiting = 0
        self._deliveries: Counter[tuple[str, str]] = Counter()
        self._seconds = Histogram(
            "alert_delivery_seconds",
            "From the result that opened an incident to its acceptance by a receiver",
            (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
        )

    def attempted(self, receiver: str, outcome: str) -> None:
        """Count an attempt: accepted, failed, refused or given-up."""
        self._deliveries[receiver, outcome] += 1

    def delivered(self, took_s: float) -> None:
        """Count the time to the delivery of a new incident."""
        self._seconds.observe(max(0.0, took_s))

    def metrics(self) -> Iterable[Metric]:
        """Yield the metrics, without the common prefix."""
        yield Metric(
            "alert_open_incidents",
            "gauge",
            "Incidents that are not resolved",
            [({"rule": rule}, count) for rule, count in self.open.items()],
        )
        yield Metric(
            "alert_deliveries_total",
            "counter",
            "Attempts to deliver a message",
            [
                ({"receiver": receiver, "outcome": outcome}, count)
                for (receiver, outcome), count in self._deliveries.items()
            ],
        )
        yield self._seconds.metric()
