"""Counts results by window and computes percentiles from the counts. Pure.

A result belongs to the window that contains its ``scheduled_at``, no matter when it arrives.
Windows are aligned to UTC. Response times are counted in log-spaced buckets, after DDSketch
(Masson, Rim and Lee, VLDB 2019): bucket *i* holds the times from ``GAMMA ** (i - 1)`` s to
``GAMMA ** i`` s. Counts of several consumers or windows are added up bucket by bucket. The
relative error of a percentile is at most ``(GAMMA - 1) / (GAMMA + 1)``, which is 1.97 %.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from monitor.aggregation.fields import FieldCounters, Measure, add_fields
from monitor.messages import Result

__all__ = [
    "GAMMA",
    "WIDTHS_S",
    "Counters",
    "Window",
    "add_up",
    "aggregate",
    "bucket_of",
    "percentile",
    "window_start",
]

WIDTHS_S: Mapping[str, int] = {"minute": 60, "hour": 3600, "day": 86400}

GAMMA = 1.04
_LOG_GAMMA = math.log(GAMMA)
# Shorter times, including zero, count as 1 us: the clocks are not more precise than that.
_LEAST_S = 1e-6
_LEAST_BUCKET = math.ceil(math.log(_LEAST_S) / _LOG_GAMMA)

_NO_STATUS = "null"


Window = tuple[int, int, str, str]
"""A window of a job: job id, start in s since the epoch, granularity, location.

A plain tuple: a batch has thousands, and the garbage collector stops tracking tuples of plain
values.
"""


class Counters(msgspec.Struct, gc=False):
    """The counters of one window.

    Without response times, ``rt_min`` and ``rt_max`` stay None. ``data`` counts by status
    (``null`` for results without an answer), ``rt_buckets`` by bucket. ``fields`` has the counters
    of the other fields that are measured.
    """

    checks: int = 0
    failures: int = 0
    rt_min: float | None = None
    rt_max: float | None = None
    rt_sum: float = 0.0
    data: dict[str, int] = {}
    rt_buckets: dict[str, int] = {}
    fields: dict[str, FieldCounters] = {}

    def add(self, other: Counters) -> None:
        """Add the counts of another window, as the database does."""
        self.checks += other.checks
        self.failures += other.failures
        self.rt_sum += other.rt_sum
        if other.rt_min is not None:
            self.rt_min = other.rt_min if self.rt_min is None else min(self.rt_min, other.rt_min)
        if other.rt_max is not None:
            self.rt_max = other.rt_max if self.rt_max is None else max(self.rt_max, other.rt_max)
        mine = self.data
        for key, count in other.data.items():
            mine[key] = mine.get(key, 0) + count
        mine = self.rt_buckets
        for key, count in other.rt_buckets.items():
            mine[key] = mine.get(key, 0) + count
        if other.fields:
            self.fields = add_fields(self.fields, other.fields)


def window_start(instant: float, granularity: str) -> int:
    """Return the start of the window that contains ``instant``, both in s since the epoch."""
    width = WIDTHS_S[granularity]
    return int(instant // width) * width


def bucket_of(response_time: float) -> int:
    """Return the bucket of a response time in s."""
    if response_time <= _LEAST_S:
        return _LEAST_BUCKET
    return math.ceil(math.log(response_time) / _LOG_GAMMA)


@functools.cache
def _key(number: int) -> str:
    # At most a thousand statuses and 900 buckets.
    return str(number)


def add_up(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    """Add counts key by key."""
    added = dict(first)
    for key, count in second.items():
        added[key] = added.get(key, 0) + count
    return added


def aggregate(
    results: Iterable[Result], granularities: Sequence[str], measures: Sequence[Measure] = ()
) -> dict[Window, Counters]:
    """Count each of ``results``, with its ``measures``, in its window of every granularity."""
    finest, *wider = sorted(granularities, key=WIDTHS_S.__getitem__)
    windows = level = _count(results, finest, measures)
    # A window is made of whole windows of the next finer granularity, of which there are fewer.
    for granularity in wider:
        width = WIDTHS_S[granularity]
        above: dict[Window, Counters] = {}
        for (job_id, start, _, location), counters in level.items():
            key = (job_id, start // width * width, granularity, location)
            total = above.get(key)
            if total is None:
                above[key] = total = Counters()
            total.add(counters)
        windows |= above
        level = above
    return windows


def _count(
    results: Iterable[Result], granularity: str, measures: Sequence[Measure]
) -> dict[Window, Counters]:
    width = WIDTHS_S[granularity]
    windows: dict[Window, Counters] = {}
    get = windows.get
    for result in results:
        response_time = result.response_time
        status = _NO_STATUS if result.status is None else _key(result.status)
        measured = _measured(result, measures) if measures else {}
        failures = 0 if result.up else 1
        key = (
            result.job_id,
            int(result.scheduled_at // width) * width,
            granularity,
            result.location,
        )
        counters = get(key)
        if counters is None:
            # Most windows of a backlog begin and end with one result.
            windows[key] = (
                Counters(1, failures, None, None, 0.0, {status: 1}, {}, measured)
                if response_time is None
                else Counters(
                    1,
                    failures,
                    response_time,
                    response_time,
                    response_time,
                    {status: 1},
                    {_key(bucket_of(response_time)): 1},
                    measured,
                )
            )
            continue
        counters.checks += 1
        counters.failures += failures
        data = counters.data
        data[status] = data.get(status, 0) + 1
        if measured:
            counters.fields = add_fields(counters.fields, measured)
        if response_time is None:
            continue
        counters.rt_sum += response_time
        if counters.rt_min is None or response_time < counters.rt_min:
            counters.rt_min = response_time
        if counters.rt_max is None or response_time > counters.rt_max:
            counters.rt_max = response_time
        bucket = _key(bucket_of(response_time))
        buckets = counters.rt_buckets
        buckets[bucket] = buckets.get(bucket, 0) + 1
    return windows


def _measured(result: Result, measures: Sequence[Measure]) -> dict[str, FieldCounters]:
    found = {}
    for field, read, buckets in measures:
        value = read(result)
        if value is not None:
            number = float(value)
            counts = {_key(bucket_of(number)): 1} if buckets else {}
            found[field] = FieldCounters(1, number, number, number, counts)
    return found


def percentile(
    rt_buckets: Mapping[str, int],
    fraction: float,
    *,
    rt_min: float | None = None,
    rt_max: float | None = None,
) -> float | None:
    """Return a percentile of the counted response times, in s; ``fraction`` is 0.95 for p95.

    It differs from the nearest-rank percentile by at most 1.97 %; without counts it returns None.
    With ``rt_min`` and ``rt_max`` of the same window, the lowest and highest rank are exact, and
    nothing is below or above them.
    """
    total = sum(rt_buckets.values())
    if not total:
        return None
    rank = min(max(math.ceil(fraction * total), 1), total)
    if rank == 1 and rt_min is not None:
        return rt_min
    if rank == total and rt_max is not None:
        return rt_max
    ranked = itertools.accumulate(
        sorted((int(key), count) for key, count in rt_buckets.items()),
        lambda before, item: (item[0], before[1] + item[1]),
    )
    bucket = next(bucket for bucket, seen in ranked if seen >= rank)
    value = _LEAST_S if bucket == _LEAST_BUCKET else 2 * GAMMA**bucket / (GAMMA + 1)
    if rt_min is not None:
        value = max(value, rt_min)
    return value if rt_max is None else min(value, rt_max)
