"""The share of time in which a job was up, from the windows of the aggregation.

A window counts for the time that it lasts, not for the number of its checks: an hour in which half
of the checks failed is half an hour down, whether there were ten checks in it or a thousand.
Windows of an hour are taken, and of a day where there are none; a window without checks is not
known, and counts neither as up nor as down. The first and the last window count for the part that
is in the span.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from monitor.aggregation.windows import WIDTHS_S
from monitor.store import Connection

__all__ = [
    "SPANS_S",
    "Counted",
    "JobUptime",
    "UptimeSpan",
    "job_uptimes",
    "job_windows",
    "merged",
    "reckon",
    "reckon_spans",
]

SPANS_S: Mapping[str, int] = {
    "24h": 86_400,
    "7d": 7 * 86_400,
    "30d": 30 * 86_400,
    "90d": 90 * 86_400,
}
"""The spans that uptime is given for, by name, in s."""


class Counted(NamedTuple):
    """The checks of one window that has any, and how many of them failed; times in s."""

    start: float
    width: float
    checks: int
    failures: int


class UptimeSpan(msgspec.Struct, frozen=True, kw_only=True):
    """How long a job was up in a span: ``up`` is the share, null without a check.

    ``known_s`` is the time that windows with checks cover, ``down_s`` the part of it that was down.
    """

    up: float | None
    down_s: float
    known_s: float
    checks: int
    failures: int


class JobUptime(msgspec.Struct, frozen=True, kw_only=True):
    """The uptime of a job by time, in the spans that end at ``until``."""

    job_id: int
    until: float
    spans: dict[str, UptimeSpan]


def merged(fine: Sequence[Counted], coarse: Iterable[Counted]) -> list[Counted]:
    """Return the fine windows, and those coarse ones in which no fine one starts."""
    starts = sorted(window.start for window in fine)

    def has_fine(window: Counted) -> bool:
        place = bisect_left(starts, window.start)
        return place < len(starts) and starts[place] < window.start + window.width

    return [*fine, *(window for window in coarse if not has_fine(window))]


def reckon(windows: Iterable[Counted], *, since: float, until: float) -> UptimeSpan:
    """Add up windows, which must not overlap, between two instants."""
    known = down = 0.0
    checks = failures = 0
    for window in windows:
        inside = min(window.start + window.width, until) - max(window.start, since)
        if inside <= 0 or window.checks <= 0:
            continue
        known += inside
        down += inside * window.failures / window.checks
        checks += window.checks
        failures += window.failures
    return UptimeSpan(
        up=1.0 - down / known if known else None,
        down_s=round(down, 3),
        known_s=round(known, 3),
        checks=checks,
        failures=failures,
    )


def job_uptimes(connection: Connection, job_ids: Sequence[int], *, now: float) -> list[JobUptime]:
    """Return the uptime of each job in all spans; runs in a thread of the store."""
    found = []
    for job_id in job_ids:
        windows = job_windows(connection, job_id, since=now - max(SPANS_S.values()), until=now)
        found.append(JobUptime(job_id=job_id, until=now, spans=reckon_spans(windows, now)))
    return found


def reckon_spans(windows: Sequence[Counted], now: float) -> dict[str, UptimeSpan]:
    """Return the uptime of each span that ends now."""
    return {name: reckon(windows, since=now - span, until=now) for name, span in SPANS_S.items()}


def job_windows(
    connection: Connection, job_id: int, *, since: float, until: float
) -> list[Counted]:
    """Return the windows to reckon with, including those that an end of the range is in."""
    found = _windows(connection, job_id, ("hour", "day"), since, until)
    if found:
        hours = [each for each in found if each.width == WIDTHS_S["hour"]]
        return merged(hours, [each for each in found if each.width == WIDTHS_S["day"]])
    return _windows(connection, job_id, ("minute",), since, until)


def _windows(
    connection: Connection, job_id: int, granularities: Sequence[str], since: float, until: float
) -> list[Counted]:
    marks = ", ".join(["%s"] * len(granularities))
    since -= max(WIDTHS_S[granularity] for granularity in granularities)
    if connection.dialect == "postgresql":
        condition = "dt >= to_timestamp(%s) AND dt < to_timestamp(%s) AND granularity"
        start = "extract(epoch from dt)::double precision"
    else:
        # The + rules out the index of granularity and time, which has the windows of all jobs; the
        # key begins with the job.
        condition, start = "dt >= %s AND dt < %s AND +granularity", "dt"
    rows = connection.query(
        f"SELECT {start}, granularity,"  # noqa: S608 - our own text
        " CAST(sum(checks) AS bigint), CAST(sum(failures) AS bigint) FROM availability_metric"
        f" WHERE job_id = %s AND {condition} IN ({marks}) GROUP BY dt, granularity ORDER BY dt",
        (job_id, since, until, *granularities),
    )
    return [
        Counted(float(at), WIDTHS_S[granularity], checks, failures)
        for at, granularity, checks, failures in rows
    ]
