"""What the database has about jobs: results, metrics by window, and last states.

The functions take a connection and run in the store's threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from monitor.aggregation.result_columns import COLUMN_LIST, result_from
from monitor.aggregation.windows import WIDTHS_S, percentile, window_start
from monitor.messages import Result
from monitor.store import Connection, Row

__all__ = [
    "Last",
    "MetricWindow",
    "Uptime",
    "last_known",
    "latest_results",
    "metric_windows",
    "results_before",
    "uptimes",
]

# How far back to look for the beginning of the present state.
_LOOK_BACK_S = 86400.0

_decode_counts = msgspec.json.Decoder(dict[str, int]).decode


class MetricWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window of a job's metrics; instants and durations in s, ``status`` counts by code."""

    start: int
    width: int
    checks: int
    failures: int
    rt_min: float | None
    rt_max: float | None
    rt_mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    status: dict[str, int]


class Uptime(msgspec.Struct, frozen=True, kw_only=True):
    """Checks and failures of one job in consecutive windows; a window with 0 checks is a gap."""

    job_id: int
    start: int
    width: int
    checks: list[int]
    failures: list[int]


class Last(msgspec.Struct, frozen=True):
    """A job's last result, and since when it was up or down; None: since before the look back.

    ``turned`` says that it was in the other state before.
    """

    result: Result
    since: float | None
    turned: bool


def results_before(
    connection: Connection,
    job_id: int,
    *,
    since: float,
    until: float,
    before: float | None,
    limit: int,
) -> list[Result]:
    """Return a job's results of ``since <= scheduled_at < until``, newest first.

    ``before`` is the end of the page before.
    """
    end = until if before is None else min(until, before)
    rows = connection.query(
        f"SELECT {COLUMN_LIST} FROM availability_result WHERE job_id = %s"  # noqa: S608
        " AND scheduled_at >= %s AND scheduled_at < %s ORDER BY scheduled_at DESC LIMIT %s",
        (job_id, since, end, limit),
    )
    return [result_from(row) for row in rows]


def latest_results(connection: Connection, after: Mapping[int, float]) -> list[Result]:
    """Return the newest result of each job in ``after`` that is newer than the time there.

    For PostgreSQL, where this takes one index lookup per job.
    """
    if not after:
        return []
    rows = connection.query(
        f"SELECT found.* FROM unnest(%s::bigint[], %s::double precision[]) AS job (id, newest)"  # noqa: S608
        f" CROSS JOIN LATERAL (SELECT {COLUMN_LIST} FROM availability_result"
        " WHERE job_id = job.id AND scheduled_at > job.newest AND scheduled_at > %s"
        " ORDER BY scheduled_at DESC LIMIT 1) AS found",
        (list(after), list(after.values()), min(after.values())),
    )
    return [result_from(row) for row in rows]


def metric_windows(
    connection: Connection,
    job_id: int,
    granularity: str,
    *,
    since: float,
    until: float,
    limit: int,
) -> list[MetricWindow]:
    """Return a job's windows that start in ``since <= start < until``, oldest first.

    Windows without checks are omitted.
    """
    start, parameter = _dt(connection)
    rows = connection.query(
        f"SELECT {start}, checks, failures, rt_min, rt_max, rt_sum, data, rt_buckets"  # noqa: S608
        " FROM availability_metric WHERE job_id = %s AND granularity = %s"
        f" AND dt >= {parameter} AND dt < {parameter} ORDER BY dt LIMIT %s",
        (job_id, granularity, since, until, limit),
    )
    return [_window(row, WIDTHS_S[granularity]) for row in rows]


def uptimes(
    connection: Connection, job_ids: Sequence[int], granularity: str, *, windows: int, now: float
) -> list[Uptime]:
    """Return each job's last ``windows`` windows up to the current one, oldest first."""
    width = WIDTHS_S[granularity]
    first = window_start(now, granularity) - (windows - 1) * width
    start, parameter = _dt(connection)
    found: list[Uptime] = []
    for job_id in job_ids:
        checks, failures = [0] * windows, [0] * windows
        rows = connection.query(
            f"SELECT {start}, checks, failures FROM availability_metric WHERE job_id = %s"  # noqa: S608
            f" AND granularity = %s AND dt >= {parameter}",
            (job_id, granularity, first),
        )
        for at, count, failed in rows:
            place = (int(at) - first) // width
            if 0 <= place < windows:
                checks[place], failures[place] = count, failed
        found.append(
            Uptime(job_id=job_id, start=first, width=width, checks=checks, failures=failures)
        )
    return found


def last_known(connection: Connection, job_ids: Iterable[int], *, now: float) -> Mapping[int, Last]:
    """Return the last state of each job that has results of the last day."""
    oldest = now - _LOOK_BACK_S
    found = {}
    for job_id in job_ids:
        results = results_before(
            connection, job_id, since=oldest, until=now + 60, before=None, limit=1
        )
        if not results:
            continue
        last = results[0]
        of_job = "FROM availability_result WHERE job_id = %s AND scheduled_at > %s"
        ((changed,),) = connection.query(
            f"SELECT max(scheduled_at) {of_job} AND up <> %s",
            (job_id, oldest, last.up),
        )
        ((first,),) = connection.query(
            f"SELECT min(scheduled_at) {of_job}",
            (job_id, oldest if changed is None else changed),
        )
        # In the same state since the beginning of the look back, and maybe for longer.
        unknown = changed is None and (first is None or first < oldest + _LOOK_BACK_S / 100)
        found[job_id] = Last(last, None if unknown else first, changed is not None)
    return found


def _dt(connection: Connection) -> tuple[str, str]:
    """Return the SQL to read a window's start, and to pass one as a parameter, in epoch s."""
    if connection.dialect == "postgresql":
        return "extract(epoch from dt)::double precision", "to_timestamp(%s)"
    return "dt", "%s"


def _window(row: Row, width: int) -> MetricWindow:
    start, checks, failures, rt_min, rt_max, rt_sum, data, rt_buckets = row
    buckets = _decode_counts(rt_buckets)
    timed = sum(buckets.values())
    p50, p95, p99 = (
        percentile(buckets, fraction, rt_min=rt_min, rt_max=rt_max)
        for fraction in (0.5, 0.95, 0.99)
    )
    return MetricWindow(
        start=int(start),
        width=width,
        checks=checks,
        failures=failures,
        rt_min=rt_min,
        rt_max=rt_max,
        rt_mean=rt_sum / timed if timed else None,
        p50=p50,
        p95=p95,
        p99=p99,
        status=dict(itertools.islice(sorted(_decode_counts(data).items()), 100)),
    )
