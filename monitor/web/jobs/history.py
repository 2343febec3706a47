"""What the database has about jobs: results, metrics by window, and last states.

The functions take a connection and run in the store's threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from monitor.aggregation.fields import FieldCounters, value_of
from monitor.aggregation.result_columns import COLUMN_LIST, result_from
from monitor.aggregation.windows import WIDTHS_S, Counters, percentile, window_start
from monitor.locations import decisive, silent_after_s
from monitor.messages import Result
from monitor.probes.job import Job
from monitor.store import Connection, Row

__all__ = [
    "Last",
    "MetricWindow",
    "Uptime",
    "has_history",
    "last_known",
    "latest_results",
    "metric_windows",
    "results_after",
    "results_before",
    "silent_after",
    "uptimes",
]

# How far back to look for the beginning of the present state.
_LOOK_BACK_S = 86400.0
# Results of one job between two reads, or to find when it went up or down.
_MOST_AFTER = 1000
_CHECKED_AT = attrgetter("checked_at")

_decode_counts = msgspec.json.Decoder(dict[str, int]).decode
_decode_fields = msgspec.json.Decoder(dict[str, FieldCounters]).decode
# Of a field that another daemon measures.
_PLAIN = ("min", "max", "avg", "sum")
_PERCENTILES = (*_PLAIN, "p50", "p95", "p99")


class MetricWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window of a job's metrics; instants and durations in s, ``status`` counts by code.

    ``fields`` has, by field of the result, what ``aggregation.fields`` names of it.
    """

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
    fields: dict[str, dict[str, float | None]] = {}


class Uptime(msgspec.Struct, frozen=True, kw_only=True):
    """Checks and failures of one job in consecutive windows; a window with 0 checks is a gap."""

    job_id: int
    start: int
    width: int
    checks: list[int]
    failures: list[int]


class Last(msgspec.Struct, frozen=True):
    """A job's last result, and since when it was up or down; None: since before the look back.

    ``turned`` says that it was in the other state before. ``located`` has the last result of each
    location, if the job is checked from several. Without a ``result``, they were too few to say
    that it was down.
    """

    result: Result | None
    since: float | None
    turned: bool
    located: tuple[Result, ...] = ()


def results_before(
    connection: Connection,
    job_id: int,
    *,
    since: float,
    until: float,
    before: tuple[float, str] | None,
    limit: int,
    location: str | None = None,
) -> list[Result]:
    """Return a job's results of ``since <= scheduled_at < until``, newest first.

    ``before`` is the time and the location that the page before ended with. ``location`` asks for
    those of one location.
    """
    condition = "job_id = %s AND scheduled_at >= %s AND scheduled_at < %s"
    parameters: list[Any] = [job_id, since, until]
    if before is not None:
        condition += " AND scheduled_at <= %s AND (scheduled_at, location) < (%s, %s)"
        parameters += (before[0], *before)
    if location is not None:
        condition += " AND location = %s"
        parameters.append(location)
    rows = connection.query(
        f"SELECT {COLUMN_LIST} FROM availability_result WHERE {condition}"  # noqa: S608
        " ORDER BY scheduled_at DESC, location DESC LIMIT %s",
        (*parameters, limit),
    )
    return [result_from(row) for row in rows]


def has_history(connection: Connection, job_id: int) -> bool:
    """Return whether any result or metric has the id."""
    return any(
        connection.query(f"SELECT 1 FROM {table} WHERE job_id = %s LIMIT 1", (job_id,))  # noqa: S608
        for table in ("availability_result", "availability_metric")
    )


def latest_results(connection: Connection, after: Mapping[int, float]) -> list[Result]:
    """Return the newest result of each job in ``after`` that is newer than the time there.

    For PostgreSQL, where this takes one index lookup per job. Of results from several locations at
    that time it is any.
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


def results_after(connection: Connection, after: Mapping[int, float]) -> list[Result]:
    """Return all results of each job in ``after`` that are newer than the time there, in order.

    Of each job a limited number, the newest.
    """
    found = []
    for job_id, since in after.items():
        found += results_before(
            connection, job_id, since=since, until=math.inf, before=None, limit=_MOST_AFTER
        )
    return sorted(found, key=_CHECKED_AT)


def metric_windows(
    connection: Connection,
    job_id: int,
    granularity: str,
    *,
    since: float,
    until: float,
    limit: int,
    functions: Mapping[str, Sequence[str]] | None = None,
    location: str | None = None,
) -> list[MetricWindow]:
    """Return a job's windows that start in ``since <= start < until``, oldest first.

    Windows without checks are omitted. A window counts the checks from all locations, or from
    ``location``. ``functions`` are those to compute, by field; of other fields, all that the stored
    counters can give.
    """
    start, parameter = _dt(connection)
    of_job = "job_id = %s AND granularity = %s"
    parameters: tuple[Any, ...] = (job_id, granularity)
    if location is not None:
        of_job += " AND location = %s"
        parameters += (location,)
    rows = connection.query(
        f"SELECT {start}, checks, failures, rt_min, rt_max, rt_sum, data, rt_buckets, fields"  # noqa: S608
        f" FROM availability_metric WHERE {of_job} AND dt IN (SELECT DISTINCT dt"
        f" FROM availability_metric WHERE {of_job} AND dt >= {parameter} AND dt < {parameter}"
        " ORDER BY dt LIMIT %s) ORDER BY dt",
        (*parameters, *parameters, since, until, limit),
    )
    width = WIDTHS_S[granularity]
    return [
        _window(int(at), width, _counters(same), functions or {})
        for at, same in itertools.groupby(rows, key=itemgetter(0))
    ]


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
                checks[place] += count
                failures[place] += failed
        found.append(
            Uptime(job_id=job_id, start=first, width=width, checks=checks, failures=failures)
        )
    return found


def last_known(connection: Connection, jobs: Iterable[Job], *, now: float) -> Mapping[int, Last]:
    """Return the last state of each job that has results of the last day, or of two intervals.

    Results of another kind or URL are not of the job as it is now.
    """
    found = {}
    of_job = (
        "FROM availability_result"
        " WHERE job_id = %s AND kind = %s AND url = %s AND scheduled_at > %s"
    )
    for job in jobs:
        # A job that is checked once a day has a state all day.
        look_back = max(_LOOK_BACK_S, 2 * job.interval)
        oldest = now - look_back
        job_id, what = job.id, (job.id, job.kind, job.shown_url)
        rows = connection.query(
            f"SELECT {COLUMN_LIST} {of_job} AND scheduled_at < %s"
            " ORDER BY scheduled_at DESC LIMIT 1",
            (*what, oldest, now + 60),
        )
        if not rows:
            continue
        last = result_from(rows[0])
        if last.location:
            found[job_id] = _last_of_locations(connection, job, last, oldest)
            continue
        ((changed,),) = connection.query(
            f"SELECT max(scheduled_at) {of_job} AND up <> %s",
            (*what, oldest, last.up),
        )
        ((first,),) = connection.query(
            f"SELECT min(scheduled_at) {of_job}",
            (*what, oldest if changed is None else changed),
        )
        # In the same state since the beginning of the look back, and maybe for longer.
        unknown = changed is None and (first is None or first < oldest + look_back / 100)
        found[job_id] = Last(last, None if unknown else first, changed is not None)
    return found


def _last_of_locations(connection: Connection, job: Job, newest: Result, oldest: float) -> Last:
    """Return the last state of a job that is checked from locations."""
    silent_s = silent_after(job)

    def after(at: float) -> list[Result]:
        found = results_after(connection, {job.id: at})
        return [each for each in found if (each.kind, each.url) == (job.kind, job.shown_url)]

    located = {each.location: each for each in after(newest.scheduled_at - silent_s)}
    last = decisive(located.values(), silent_s=silent_s)
    changed = None
    if last is not None:
        ((changed,),) = connection.query(
            "SELECT max(scheduled_at) FROM availability_result"
            " WHERE job_id = %s AND kind = %s AND url = %s AND scheduled_at > %s AND up <> %s",
            (job.id, job.kind, job.shown_url, oldest, last.up),
        )
    since, shown = None, None
    if last is None or changed is not None:
        # A location said otherwise, or what was decides: the results show since when the quorum
        # says so.
        known: dict[str, Result] = {}
        for each in after(oldest):
            known[each.location] = each
            was_down = shown is not None and not shown.up
            found = decisive(known.values(), silent_s=silent_s, was_down=was_down)
            if found is None:
                continue
            if shown is not None and shown.up != found.up:
                since = each.scheduled_at
            shown = found
    return Last(last or shown, since, since is not None, tuple(located.values()))


def silent_after(job: Job) -> float:
    """Return after how many s without a result a location does not count for a job."""
    return silent_after_s(job.interval, job.timeout * (job.retries + 1))


def _dt(connection: Connection) -> tuple[str, str]:
    """Return the SQL to read a window's start, and to pass one as a parameter, in epoch s."""
    if connection.dialect == "postgresql":
        return "extract(epoch from dt)::double precision", "to_timestamp(%s)"
    return "dt", "%s"


def _counters(rows: Iterable[Row]) -> Counters:
    """Return the counters in the rows of a window, one per location, added up."""
    total = Counters()
    for _, checks, failures, rt_min, rt_max, rt_sum, data, rt_buckets, fields in rows:
        total.add(
            Counters(
                checks,
                failures,
                rt_min,
                rt_max,
                rt_sum,
                _decode_counts(data),
                _decode_counts(rt_buckets),
                _decode_fields(fields),
            )
        )
    return total


def _rounded(value: float | None) -> float | None:
    """Return a value to the microsecond: what is finer was not measured, and only makes it long."""
    return None if value is None else round(value, 6)


def _window(
    start: int, width: int, counted: Counters, functions: Mapping[str, Sequence[str]]
) -> MetricWindow:
    buckets = counted.rt_buckets
    timed = sum(buckets.values())
    p50, p95, p99 = (
        percentile(buckets, fraction, rt_min=counted.rt_min, rt_max=counted.rt_max)
        for fraction in (0.5, 0.95, 0.99)
    )
    return MetricWindow(
        start=start,
        width=width,
        checks=counted.checks,
        failures=counted.failures,
        rt_min=_rounded(counted.rt_min),
        rt_max=_rounded(counted.rt_max),
        rt_mean=_rounded(counted.rt_sum / timed) if timed else None,
        p50=_rounded(p50),
        p95=_rounded(p95),
        p99=_rounded(p99),
        status=dict(itertools.islice(sorted(counted.data.items()), 100)),
        fields={
            field: {
                name: value_of(counters, name, percentile)
                for name in functions.get(field, _PERCENTILES if counters.buckets else _PLAIN)
            }
            for field, counters in counted.fields.items()
        },
    )
