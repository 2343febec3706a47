"""Counters of the aggregation itself, for ``/metrics`` and the systemd status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from monitor.aggregation.writer import Written
from monitor.metrics import Histogram, Metric
from monitor.part import counted

__all__ = ["Statistics"]


class Statistics:
    """Counters of one consumer since its start; ``lag`` maps partitions to messages."""

    def __init__(self, topic: str) -> None:
        self._labels = {"topic": topic}
        self.new = 0
        self.duplicates = 0
        self.rejected = 0
        self.lost_races = 0
        self.longest_commit_s = 0.0
        self.lag: Mapping[int, int] = {}
        self._batch_messages = Histogram(
            "consumer_batch_messages",
            "Messages in one transaction",
            (1, 10, 100, 500, 1000, 5000, 20_000, 100_000),
            self._labels,
        )
        self._commit_seconds = Histogram(
            "consumer_commit_seconds",
            "Duration of one transaction",
            (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            self._labels,
        )

    def committed(self, written: Written, *, messages: int, took_s: float) -> None:
        """Count a committed batch."""
        self.new += written.new
        self.longest_commit_s = max(self.longest_commit_s, took_s)
        self.duplicates += written.duplicates
        self.rejected += written.rejected
        self._batch_messages.observe(messages)
        self._commit_seconds.observe(took_s)

    def summary(self) -> str:
        """Return the counters as one line of the systemd status."""
        lag = sum(self.lag.values())
        partitions, results = counted(len(self.lag), "partition"), counted(self.new, "result")
        duplicates = counted(self.duplicates, "duplicate")
        return f"{partitions}, lag {lag}, {results}, {duplicates}, {self.rejected} rejected"

    def metrics(self) -> Iterable[Metric]:
        """Yield the metrics, without the common prefix."""
        labels = self._labels
        yield Metric(
            "consumer_lag",
            "gauge",
            "Messages of the topic that are not read yet",
            [({**labels, "partition": str(number)}, lag) for number, lag in self.lag.items()],
        )
        for name, text, value in (
            ("consumer_results_total", "Results written, without duplicates", self.new),
            ("consumer_duplicates_total", "Results that were written before", self.duplicates),
            ("consumer_rejected_total", "Messages stored in rejected_message", self.rejected),
            ("consumer_lost_races_total", "Batches left to another consumer", self.lost_races),
        ):
            yield Metric(name, "counter", text, [(labels, value)])
        yield self._batch_messages.metric()
        yield self._commit_seconds.metric()
