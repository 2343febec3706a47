"""Outages of sites, from results: when each began and ended, and of what. Pure but for the queries.

The aggregation's windows with failures tell where to look; the results of these windows tell from
when to when. That costs what is down, not what is watched. Past a limit, and where the results are
no longer kept, begin and end are those of windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from monitor.aggregation.result_columns import COLUMN_LIST, result_from
from monitor.aggregation.windows import WIDTHS_S
from monitor.locations import decisive, silent_after_s
from monitor.messages import Result
from monitor.store import Connection

__all__ = [
    "FailedWindow",
    "Found",
    "Outage",
    "Turn",
    "outages_of_turns",
    "rough_outages",
    "search",
    "with_current",
]

_MOST_WINDOWS = 20_000
# Results that are looked at for exact times, in all.
_MOST_RESULTS = 200_000
_MOST_TURNS = 2000
_LOOK_BACK_S = 86_400.0


class FailedWindow(NamedTuple):
    """A window of a job in which checks failed; times in s since the epoch."""

    job_id: int
    start: float
    width: float
    checks: int
    failures: int


class Turn(NamedTuple):
    """A result that differs from the one before: from then on the job is up, or down."""

    at: float
    up: bool
    error: str


class Outage(NamedTuple):
    """A job was down from ``start`` until ``end``; None: no later result says that it is up.

    ``seen`` is until when failures were seen, if it continues; ``rough`` as in Event.
    """

    job_id: int
    start: float
    end: float | None
    error: str
    rough: bool = False
    seen: float = 0.0


class Found(NamedTuple):
    """The outages of a range, and whether there were too many to find all."""

    outages: list[Outage]
    cut: bool


def outages_of_turns(job_id: int, turns: Iterable[Turn]) -> list[Outage]:
    """Return the outages between turns, which are in the order of time."""
    found: list[Outage] = []
    began: Turn | None = None
    for turn in turns:
        if turn.up:
            if began is not None:
                found.append(Outage(job_id, began.at, turn.at, began.error))
            began = None
        elif began is None:
            began = turn
    if began is not None:
        found.append(Outage(job_id, began.at, None, began.error))
    return found


def rough_outages(windows: Sequence[FailedWindow], *, until: float) -> list[Outage]:
    """Return the outages of one job by its failed windows, which are in the order of time.

    Windows that follow one another are one outage. The last one continues if its window does.
    """
    found: list[Outage] = []
    for window in windows:
        end = window.start + window.width
        last = found[-1] if found else None
        if last is not None and last.end is not None and window.start <= last.end:
            found[-1] = last._replace(end=end)
        else:
            found.append(Outage(window.job_id, window.start, end, "", rough=True))
    if found and (found[-1].end or 0.0) >= until:
        found[-1] = found[-1]._replace(end=None, seen=until)
    return found


def search(
    connection: Connection, *, since: float, until: float, job_id: int | None = None
) -> Found:
    """Return the outages of a range, of one job or of all; runs in a thread of the store."""
    windows = _failed_windows(connection, since, until, job_id)
    by_job: dict[int, list[FailedWindow]] = {}
    for window in sorted(windows):
        by_job.setdefault(window.job_id, []).append(window)
    found: list[Outage] = []
    left = _MOST_RESULTS
    # Those that are cheap to look at first: most are found exactly.
    for job, failed in sorted(by_job.items(), key=lambda item: _cost(item[1])):
        left -= _cost(failed)
        exact = _exact(connection, job, failed, since) if left >= 0 else None
        found += rough_outages(failed, until=until) if exact is None else exact
    inside = [
        outage
        for outage in found
        if outage.start < until and (outage.end is None or outage.end > since)
    ]
    return Found(inside, len(windows) >= _MOST_WINDOWS)


def _cost(windows: Sequence[FailedWindow]) -> int:
    # The results between the first and the last failed window are read.
    densest = max(window.checks / window.width for window in windows)
    return round((windows[-1].start + windows[-1].width - windows[0].start) * densest)


def _failed_windows(
    connection: Connection, since: float, until: float, job_id: int | None
) -> list[FailedWindow]:
    start, parameter = "dt", "%s"
    if connection.dialect == "postgresql":
        start, parameter = "extract(epoch from dt)::double precision", "to_timestamp(%s)"
    of_job = "" if job_id is None else " AND job_id = %s"
    for granularity in _granularities(until - since):
        width = WIDTHS_S[granularity]
        rows = connection.query(
            f"SELECT job_id, {start}, checks, failures FROM availability_metric"  # noqa: S608 - our own text
            f" WHERE granularity = %s AND failures > 0 AND dt > {parameter} AND dt < {parameter}"
            f"{of_job} ORDER BY dt DESC LIMIT %s",
            (
                granularity,
                since - width,
                until,
                *(() if job_id is None else (job_id,)),
                _MOST_WINDOWS,
            ),
        )
        if rows:
            return [
                FailedWindow(job, float(at), width, checks, failures)
                for job, at, checks, failures in rows
            ]
    return []


def _granularities(span: float) -> tuple[str, ...]:
    """Return the granularities to look at, until one has something: not all may be in use."""
    if span <= 6 * 3600:
        return ("minute", "hour", "day")
    if span <= 14 * 86400:
        return ("hour", "day", "minute")
    return ("day", "hour")


def _exact(
    connection: Connection, job_id: int, windows: Sequence[FailedWindow], since: float
) -> list[Outage] | None:
    """Return a job's outages by its results; None if these are no longer kept."""
    first, end = windows[0].start, windows[-1].start + windows[-1].width
    located = _located_turns(connection, job_id, first, end + windows[-1].width)
    if located is not None:
        found = outages_of_turns(job_id, located)
        return [
            outage._replace(seen=end)
            for outage in found
            if outage.end is None or outage.end > since
        ]
    rows = connection.query(
        "SELECT scheduled_at, up, error, status FROM (SELECT scheduled_at, up, error, status,"
        " lag(up) OVER (ORDER BY scheduled_at) AS before FROM availability_result"
        " WHERE job_id = %s AND scheduled_at >= %s AND scheduled_at < %s) AS result"
        " WHERE before IS NULL OR before <> up ORDER BY scheduled_at DESC LIMIT %s",
        (job_id, first, end, _MOST_TURNS),
    )
    turns = [Turn(at, bool(up), _words(error, status)) for at, up, error, status in rows][::-1]
    if not any(not turn.up for turn in turns):
        return None
    if not turns[0].up and len(turns) < _MOST_TURNS:
        turns[0] = _begin(connection, job_id, turns[0])
    if not turns[-1].up:
        ((up_at,),) = connection.query(
            "SELECT min(scheduled_at) FROM availability_result"
            " WHERE job_id = %s AND up AND scheduled_at >= %s",
            (job_id, end),
        )
        if up_at is not None:
            turns.append(Turn(up_at, True, ""))
    return [
        outage._replace(seen=end)
        for outage in outages_of_turns(job_id, turns)
        if outage.end is None or outage.end > since
    ]


def _located_turns(
    connection: Connection, job_id: int, since: float, until: float
) -> list[Turn] | None:
    """Return the turns of a job that is checked from several locations; None for another job.

    It turns when a quorum of the locations says so.
    """
    found = connection.query(
        "SELECT 1 FROM availability_result WHERE job_id = %s AND scheduled_at >= %s"
        " AND scheduled_at < %s AND location <> '' LIMIT 1",
        (job_id, since, until),
    )
    if not found:
        return None
    rows = connection.query(
        f"SELECT {COLUMN_LIST} FROM availability_result WHERE job_id = %s"  # noqa: S608
        " AND scheduled_at >= %s AND scheduled_at < %s"
        " ORDER BY scheduled_at, checked_at LIMIT %s",
        (job_id, since, until, _MOST_RESULTS),
    )
    results = [result_from(row) for row in rows]
    times = sorted({result.scheduled_at for result in results})
    # The job may have had another interval then.
    step = median(two - one for one, two in pairwise(times)) if len(times) > 1 else 0.0
    silent_s = silent_after_s(step, step)
    known: dict[str, Result] = {}
    turns: list[Turn] = []
    for result in results:
        known[result.location] = result
        was_down = bool(turns) and not turns[-1].up
        shown = decisive(known.values(), silent_s=silent_s, was_down=was_down)
        if shown is None:
            continue
        if not turns or turns[-1].up != shown.up:
            turns.append(Turn(result.scheduled_at, shown.up, _words(shown.error, shown.status)))
    return turns


def _begin(connection: Connection, job_id: int, first: Turn) -> Turn:
    """Return when a job went down that was down already, up to a day before."""
    oldest = first.at - _LOOK_BACK_S
    ((up_at,),) = connection.query(
        "SELECT max(scheduled_at) FROM availability_result"
        " WHERE job_id = %s AND up AND scheduled_at >= %s AND scheduled_at < %s",
        (job_id, oldest, first.at),
    )
    rows = connection.query(
        "SELECT scheduled_at, error, status FROM availability_result"
        " WHERE job_id = %s AND scheduled_at > %s AND scheduled_at < %s"
        " ORDER BY scheduled_at LIMIT 1",
        (job_id, oldest if up_at is None else up_at, first.at),
    )
    if not rows:
        return first
    ((at, error, status),) = rows
    return Turn(at, False, _words(error, status))


def _words(error: str | None, status: int | None) -> str:
    return error or ("" if status is None else f"status {status}")


def with_current(
    outages: Iterable[Outage], down_since: Mapping[int, float | None], *, until: float
) -> list[Outage]:
    """Return the outages, corrected by the present states.

    ``down_since`` has the jobs that are down now, and since when, if that is known: their last
    outage continues. The outage of any other job ended with its last result.
    """
    found = []
    open_jobs = set()
    for outage in outages:
        if outage.end is None and outage.job_id not in down_since:
            end = max(outage.start, min(outage.seen, until))
            found.append(outage._replace(end=end, rough=True))
            continue
        if outage.end is None:
            open_jobs.add(outage.job_id)
        found.append(outage)
    found += [
        Outage(job_id, since, None, "")
        for job_id, since in down_since.items()
        if since is not None and since < until and job_id not in open_jobs
    ]
    return found
