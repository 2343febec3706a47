"""Bursts of errors in the logs: errors that follow one another closely. Pure but for the query."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from monitor.store import Connection

__all__ = ["Burst", "Counts", "Slot", "bursts_of", "count_errors"]

# The newest entries of the range that are looked at, errors or not.
_MOST_ENTRIES = 100_000
_MOST_SLOTS = 20_000
_FEWEST = 3
# Slots without an error that end a burst.
_QUIET = 2


class Slot(NamedTuple):
    """The errors of a sender in one slot; ``start`` in s since the epoch."""

    start: float
    sender: str
    errors: int


class Counts(NamedTuple):
    """The errors by slot, ``width`` s wide; ``since`` is later than asked if there was too much."""

    slots: list[Slot]
    width: float
    since: float


class Burst(NamedTuple):
    """Errors from ``start`` to ``end``, and how many each sender has, most first."""

    start: float
    end: float
    errors: int
    senders: list[tuple[str, int]]


def bursts_of(slots: Iterable[Slot], *, width: float, fewest: int = _FEWEST) -> list[Burst]:
    """Return the bursts with at least ``fewest`` errors, oldest first."""
    found: list[Burst] = []
    start = end = 0.0
    by_sender: Counter[str] = Counter()

    def finish() -> None:
        if by_sender.total() >= fewest:
            found.append(Burst(start, end, by_sender.total(), by_sender.most_common()))

    for slot in sorted(slots):
        if by_sender and slot.start - end > _QUIET * width:
            finish()
            by_sender = Counter()
        if not by_sender:
            start = slot.start
        by_sender[slot.sender] += slot.errors
        end = slot.start + width
    finish()
    return found


def count_errors(
    connection: Connection, *, since: float, until: float, sender: str | None = None
) -> Counts:
    """Count errors by slot and sender; runs in a thread of the store."""
    width = max(1.0, (until - since) / 240)
    conditions, values = "time >= %s AND time < %s", [since, until]
    named: list[object] = list(values)
    if sender is not None:
        conditions += " AND sender = %s"
        named.append(sender)
    slot = "CAST(time / %s AS INTEGER)"
    if connection.dialect == "postgresql":
        slot = "floor(time / %s)::bigint"
    rows = connection.query(
        f"SELECT {slot} AS slot, CASE WHEN level IN ('error', 'critical') THEN sender END AS who,"  # noqa: S608 - our own text
        " count(*), min(time) FROM (SELECT level, time, sender FROM log_entry"
        f" WHERE {conditions} ORDER BY time DESC LIMIT %s) AS entry"
        " GROUP BY 1, 2 ORDER BY 1 DESC LIMIT %s",
        (width, *named, _MOST_ENTRIES, _MOST_SLOTS),
    )
    total = sum(count for _, _, count, _ in rows)
    begin = since
    if rows and (total >= _MOST_ENTRIES or len(rows) >= _MOST_SLOTS):
        begin = min(at for _, _, _, at in rows)
    return Counts(
        [Slot(number * width, who, count) for number, who, count, _ in rows if who is not None],
        width,
        begin,
    )
