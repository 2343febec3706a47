"""What the store has for the public status: days, uptimes, incidents and maintenance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from monitor.alerts.maintenance import occurrences
from monitor.alerts.matching import matches
from monitor.alerts.settings import Maintenance, Match
from monitor.alerts.silences import Silence, list_silences
from monitor.probes.job import Job
from monitor.store import Connection, Store
from monitor.web.jobs.uptime import Counted, job_windows, reckon, reckon_spans
from monitor.web.public.status import Maintained, Outage, PublicDay, PublicHistory
from monitor.web.timeline.outages import search

__all__ = ["DAYS", "Past", "history_of"]

DAYS = 90

_DAY_S = 86400
_TIMEOUT_S = 10.0
# Jobs whose past is read in one transaction.
_AT_ONCE = 25
_IDS_IN_ONE_QUERY = 500
_MOST_OUTAGES = 1000
# How far ahead maintenance is announced.
_AHEAD_S = 7 * _DAY_S


class Past:
    """Reads what is stored; methods raise MonitorError.

    ``windows`` returns the windows of maintenance in force, ``rules`` whether a rule opens
    incidents of sites. ``metrics`` and ``alerts`` say whether these parts may have written.
    """

    def __init__(
        self,
        store: Store,
        *,
        windows: Callable[[], Sequence[Maintenance]] = tuple,
        rules: Callable[[], bool] = bool,
        metrics: bool = True,
        alerts: bool = True,
    ) -> None:
        self._store = store
        self._windows = windows
        self._rules = rules
        self._metrics = metrics
        self._alerts = alerts

    async def histories(self, ids: Sequence[int], now: float) -> Mapping[int, PublicHistory]:
        """Return the last days and the uptimes of jobs."""
        found: dict[int, PublicHistory] = {}
        if not self._metrics:
            return found
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            found |= await self._store.read(
                partial(_histories, ids=some, now=now), timeout=_TIMEOUT_S
            )
        return found

    async def incidents(self, ids: Sequence[int], now: float) -> list[Outage] | None:
        """Return the incidents of jobs in the last days, or None if no rule opens any."""
        if not self._rules():
            return None
        since = now - DAYS * _DAY_S
        return await self._store.read(partial(_incidents, ids=ids, since=since), timeout=_TIMEOUT_S)

    async def outages(self, ids: Sequence[int], now: float) -> list[Outage]:
        """Return the outages of jobs in the last days as the results show them."""
        found: list[Outage] = []
        if not self._metrics:
            return found
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            found += await self._store.read(
                partial(_outages, ids=some, now=now), timeout=_TIMEOUT_S
            )
        return found

    async def maintained(self, jobs: Sequence[Job], now: float) -> list[Maintained]:
        """Return maintenance that is under way or comes soon: windows of the config, silences."""
        found = []
        for window in self._windows():
            sites = _matching(window.match, jobs)
            if sites:
                found += _next(window, sites, now)
        if self._alerts:
            silences: list[Silence] = await self._store.read(
                partial(list_silences, now=now), timeout=_TIMEOUT_S
            )
            for silence in silences:
                sites = _matching(silence.match, jobs)
                if sites and silence.starts_at < now + _AHEAD_S:
                    found.append(Maintained(sites, silence.starts_at, silence.until))
        return found


def history_of(windows: Sequence[Counted], now: float) -> PublicHistory:
    """Return the days and uptimes of a job from its windows. Pure."""
    first = now // _DAY_S - DAYS + 1
    by_day: list[list[Counted]] = [[] for _ in range(DAYS)]
    for window in windows:
        place = int(window.start // _DAY_S - first)
        if 0 <= place < DAYS:
            by_day[place].append(window)
    days = []
    for group in by_day:
        counted = reckon(group, since=0.0, until=now)
        days.append(PublicDay(known_s=counted.known_s, down_s=counted.down_s))
    spans = reckon_spans(windows, now)
    return PublicHistory(days=days, uptime={name: span.up for name, span in spans.items()})


def _histories(
    connection: Connection, *, ids: Iterable[int], now: float
) -> dict[int, PublicHistory]:
    since = now - DAYS * _DAY_S
    return {
        job_id: history_of(job_windows(connection, job_id, since=since, until=now), now)
        for job_id in ids
    }


def _incidents(connection: Connection, *, ids: Sequence[int], since: float) -> list[Outage]:
    found: list[Outage] = []
    for start in range(0, len(ids), _IDS_IN_ONE_QUERY):
        some = ids[start : start + _IDS_IN_ONE_QUERY]
        marks = ", ".join(["%s"] * len(some))
        rows = connection.query(
            "SELECT id, job_id, opened_at, resolved_at FROM alert_incident"  # noqa: S608
            f" WHERE job_id IN ({marks}) AND watch = 'site' AND suppressed_by IS NULL"
            " AND (resolved_at IS NULL OR resolved_at >= %s) ORDER BY seq DESC LIMIT %s",
            (*some, since, _MOST_OUTAGES),
        )
        found += [Outage(*row) for row in rows]
    return found


def _outages(connection: Connection, *, ids: Iterable[int], now: float) -> list[Outage]:
    """Return the outages whose times are known. Old ones are kept by the day, without times."""
    return [
        Outage(f"{job_id}-{each.start:.3f}", job_id, each.start, each.end)
        for job_id in ids
        for each in search(connection, since=now - DAYS * _DAY_S, until=now, job_id=job_id).outages
        if not each.rough
    ]


def _matching(match: Match, jobs: Iterable[Job]) -> frozenset[int]:
    return frozenset(
        job.id
        for job in jobs
        if matches(match, subject=str(job.id), watch="site", job_id=job.id, tags=job.tags)
    )


def _next(window: Maintenance, sites: frozenset[int], now: float) -> list[Maintained]:
    """Return the window that is open, and the next one."""
    found = []
    for begins_at, ends_at in occurrences(window, now, now + _AHEAD_S):
        found.append(Maintained(sites, begins_at, ends_at))
        if begins_at > now:
            break
    return found
