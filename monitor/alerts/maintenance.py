"""Maintenance windows by local time. Pure.

A window is read from a clock on the wall: on the day on which clocks are set ahead, one from 02:00
until 04:00 lasts an hour, and three hours on the day on which they are set back.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo

from monitor.alerts.settings import Maintenance

__all__ = ["occurrences", "open_until"]

_DAY_MINUTES = 1440


def open_until(window: Maintenance, now: float) -> float | None:
    """Return when the window that is open at ``now`` ends (s since the epoch), or None."""
    for start, stop in occurrences(window, now, now):
        if start <= now < stop:
            return stop
    return None


def occurrences(window: Maintenance, since: float, until: float) -> list[tuple[float, float]]:
    """Return begin and end (s since the epoch) of the window each time it is in a range of time."""
    zone = window.zone()
    # The window that began the day before may be open.
    day = datetime.fromtimestamp(since, UTC).astimezone(zone).date() - timedelta(days=1)
    last = datetime.fromtimestamp(until, UTC).astimezone(zone).date()
    found: list[tuple[float, float]] = []
    while day <= last:
        if day.weekday() in window.weekdays():
            found += _of_day(window, day, zone)
        day += timedelta(days=1)
    return [(start, stop) for start, stop in found if start <= until and stop > since]


def _of_day(window: Maintenance, day: date, zone: tzinfo) -> list[tuple[float, float]]:
    """Return when the window that begins on a day is open: in two pieces if clocks are set then.

    A time that there is twice, or not at all, has two readings: by the offset before and after.
    """
    begin, end = window.span()
    starts, stops = _readings(day, begin, zone), _readings(day, end, zone)
    change = _change(min(starts), max(stops), zone)
    if change is None:
        return [(starts[0], stops[0])]
    before = starts[0], min(stops[0], change)
    after = max(starts[1], change), stops[1]
    found = [(start, stop) for start, stop in (before, after) if start < stop]
    if len(found) == 2 and before[1] == after[0]:
        return [(before[0], after[1])]
    return found


def _readings(day: date, minutes: int, zone: tzinfo) -> tuple[float, float]:
    days, minutes = divmod(minutes, _DAY_MINUTES)
    naive = datetime.combine(day + timedelta(days=days), time(minutes // 60, minutes % 60))
    first, second = (naive.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
    return first, second


def _change(low: float, high: float, zone: tzinfo) -> float | None:
    """Return when clocks are set between two times, if they are."""

    def offset(at: float) -> timedelta | None:
        return datetime.fromtimestamp(at, zone).utcoffset()

    before = offset(low)
    if offset(high) == before:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if offset(middle) == before:
            low = middle
        else:
            high = middle
    return high
