"""Maintenance windows by local time. Pure.

A window is read from a clock on the wall: on the day on which clocks are set ahead, one from 02:00
until 04:00 lasts an hour, and three hours on the day on which they are set back.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo

from monitor.alerts.settings import Maintenance

__all__ = ["occurrences", "open_until"]

_DAY_MINUTES = 1440
_FOREVER_S = 1e12


def open_until(window: Maintenance, now: float) -> float | None:
    """Return when the window that is open at ``now`` ends (s since the epoch), or None."""
    zone = window.zone()
    local = datetime.fromtimestamp(now, UTC).astimezone(zone)
    begin, end = window.span()
    seconds = local.hour * 3600 + local.minute * 60 + local.second + local.microsecond / 1e6
    # The window that began today, or yesterday.
    for days_ago in (0, 1):
        day = local.date() - timedelta(days=days_ago)
        passed = seconds + days_ago * 86400
        if day.weekday() in window.weekdays() and begin * 60 <= passed < end * 60:
            return _at(day, end, zone, now)
    return None


def occurrences(window: Maintenance, since: float, until: float) -> list[tuple[float, float]]:
    """Return begin and end (s since the epoch) of the window each time it is in a range of time."""
    zone = window.zone()
    begin, end = window.span()
    day = datetime.fromtimestamp(since, UTC).astimezone(zone).date() - timedelta(days=1)
    last = datetime.fromtimestamp(until, UTC).astimezone(zone).date()
    found = []
    while day <= last:
        if day.weekday() in window.weekdays():
            start = _at(day, begin, zone, -_FOREVER_S)
            found.append((start, _at(day, end, zone, start)))
        day += timedelta(days=1)
    return [(start, stop) for start, stop in found if start < until and stop > since]


def _at(day: date, minutes: int, zone: tzinfo, now: float) -> float:
    days, minutes = divmod(minutes, _DAY_MINUTES)
    naive = datetime.combine(day + timedelta(days=days), time(minutes // 60, minutes % 60))
    # Of a time that there is twice, the later one.
    found = naive.replace(tzinfo=zone, fold=1).timestamp()
    return max(found, now + 1.0)
