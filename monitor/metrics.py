"""Metrics of the parts, in the terms of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

__all__ = ["Histogram", "Metric", "Sample"]

Sample = tuple[Mapping[str, str], float]
"""Labels and a value."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family as /metrics shows it, without the ``recodex_monitor_`` prefix.

    Each sample of a histogram's bucket has the label ``le`` and a cumulative count. Two more
    samples, for the suffixes ``_sum`` and ``_count``, carry the suffix in the label ``__suffix__``.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Sequence[Sample]


class Histogram:
    """Counts observations in buckets; ``bounds`` are the buckets' upper bounds, ascending."""

    def __init__(
        self,
        name: str,
        help: str,
        bounds: Sequence[float],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._help = help
        self._bounds = tuple(bounds)
        self._labels = dict(labels or {})
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count an observation, in the unit of the bounds."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def metric(self) -> Metric:
        """Return the histogram as it is now."""
        labels = self._labels
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        counts = [float(count) for count in accumulate(self._counts)]
        samples: list[Sample] = [
            ({**labels, "le": bound}, count) for bound, count in zip(bounds, counts, strict=True)
        ]
        samples.append(({**labels, "__suffix__": "_sum"}, self._sum))
        samples.append(({**labels, "__suffix__": "_count"}, counts[-1]))
        return Metric(self._name, "histogram", self._help, samples)
