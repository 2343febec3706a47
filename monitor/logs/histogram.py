"""How many entries match a query, by time and level: the bars above a log; both databases."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from monitor.logs.entries import Entry
from monitor.logs.filters import Kind, Query
from monitor.logs.levels import LEVELS
from monitor.logs.pages import TABLES, matching
from monitor.store import Connection

__all__ = ["MAX_BARS", "Bars", "Histogram", "histogram", "oldest"]

MAX_BARS: Final = 500


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Bars of ``width`` s from ``start`` (s since the epoch); each level's counts, oldest first."""

    start: float
    width: float
    levels: dict[str, list[int]]


def histogram(
    connection: Connection, query: Query, *, begin: float, end: float, bars: int
) -> Histogram:
    """Count the entries of a query from ``begin`` to ``end``, which is excluded."""
    width = (end - begin) / bars
    conditions, values = matching(connection, query.filter, oldest=begin)
    # PostgreSQL would round.
    number = "CAST((time - %s) / %s AS INTEGER)"
    if connection.dialect == "postgresql":
        number = "CAST(floor((time - %s) / %s) AS INTEGER)"
    rows = connection.query(
        f"SELECT {number} AS bar, level, count(*) FROM {TABLES[query.kind]}"  # noqa: S608 - no user input
        f" WHERE {' AND '.join([*conditions, 'time < %s'])} GROUP BY 1, 2",
        (begin, width, *values, end),
    )
    counts = Bars(begin, end, bars)
    for bar, level, count in rows:
        counts.add(level, int(bar), count)
    return counts.histogram()


class Bars:
    """Counts for a histogram from ``begin`` to ``end``."""

    def __init__(self, begin: float, end: float, bars: int) -> None:
        self._begin = begin
        self._width = (end - begin) / bars
        self._last = bars - 1
        self._levels = {level: [0] * bars for level in LEVELS}

    def add(self, level: str, bar: int, count: int) -> None:
        """Count entries in a bar."""
        # A time right before the end may be rounded up.
        self._levels[level][min(bar, self._last)] += count

    def count(self, entries: Iterable[Entry]) -> None:
        """Count entries, none of which is before the beginning."""
        for entry in entries:
            self.add(entry.level, math.floor((entry.time - self._begin) / self._width), 1)

    def histogram(self) -> Histogram:
        """Return what was counted."""
        return Histogram(start=self._begin, width=self._width, levels=self._levels)


def oldest(connection: Connection, kind: Kind, *, before: float) -> float:
    """Return the time of the oldest entry, or ``before`` if there is none before it."""
    ((found,),) = connection.query(f"SELECT min(time) FROM {TABLES[kind]}")  # noqa: S608 - no user input
    return before if found is None else min(float(found), before)
