"""Counts of observations by size, as Prometheus has them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from monitor.part import Metric, Sample

__all__ = ["Histogram"]


class Histogram:
    """Observations in s, counted up to each of ``bounds``, which are in ascending order."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count an observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def metric(self) -> Metric:
        """Return the histogram as a metric."""
        samples: list[Sample] = []
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            text = "+Inf" if bound == float("inf") else f"{bound:g}"
            samples.append(({"le": text}, float(total)))
        samples.append(({"__suffix__": "_sum"}, self._sum))
        samples.append(({"__suffix__": "_count"}, float(total)))
        return Metric(self._name, "histogram", self._text, samples)
