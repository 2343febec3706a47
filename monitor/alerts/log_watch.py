"""Watches log entries by reading those that are committed; one instance at a time does."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

from monitor.alerts.conditions import Condition
from monitor.alerts.log_counts import LEVELS, LogCounts, LogLine
from monitor.alerts.settings import LogsRule, Rule
from monitor.alerts.watching import Watch
from monitor.files.threads import call_aside
from monitor.store import Connection, Row, Store
from monitor.yielding import over_turns

__all__ = ["LogWatch"]

# At least the entries of one commit.
_AT_ONCE = 20_000
# The ids of one commit in PostgreSQL have this many bits; commits may become visible in another
# order than their numbers, but not by more than this many.
_BLOCK_BITS = 16
_BLOCKS_BACK = 256
_COLUMNS = "id, level, received_at, sender, substr(message, 1, 200)"


class LogWatch(Watch):
    """Counts the entries of each sender in windows by when they were received."""

    def __init__(
        self,
        store: Store,
        *,
        rules: Callable[[], Sequence[Rule]],
        group_wait: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(store, source="logs", rules=rules, group_wait=group_wait, clock=clock)
        self._counts = LogCounts()
        self._last_id: int | None = None
        self._blocks: dict[int, None] = {}
        self._known: list[LogsRule] = []

    async def look(self) -> Sequence[Condition]:
        """Count new entries; from the first look on, or for new rules, those of a window, too."""
        rules = [each async for each in over_turns(self._rules()) if isinstance(each, LogsRule)]
        if not rules:
            self._last_id = None
            return ()
        if rules != self._known or self._last_id is None:
            self._known, self._counts = rules, LogCounts()
            self._last_id, self._blocks = None, {}
        lowest = min(LEVELS.index(rule.min_level) for rule in rules)
        longest = max(rule.within for rule in rules)
        while True:
            rows = await self._store.read(
                functools.partial(self._read, levels=LEVELS[lowest:], since=self.clock() - longest)
            )
            # There may be thousands of entries, of rules and of senders.
            if rows:
                await call_aside(self._counts.add, (LogLine(*row[1:]) for row in rows), rules)
            if len(rows) < _AT_ONCE:
                return await call_aside(self._counts.conditions, rules, now=self.clock())

    def _read(self, connection: Connection, levels: Sequence[str], since: float) -> list[Row]:
        marks = ", ".join(["%s"] * len(levels))
        if connection.dialect == "postgresql":
            return self._read_blocks(connection, levels, since)
        ((newest,),) = connection.query("SELECT coalesce(max(id), 0) FROM log_entry")
        if self._last_id is not None and newest < self._last_id:
            # The table was empty in between, and its ids begin again.
            self._last_id = 0
        rows = connection.query(
            f"SELECT {_COLUMNS} FROM log_entry WHERE id > %s AND received_at > %s"  # noqa: S608
            f" AND level IN ({marks}) ORDER BY id LIMIT {_AT_ONCE}",
            (self._last_id or 0, since, *levels),
        )
        self._last_id = rows[-1][0] if len(rows) == _AT_ONCE else newest
        return rows

    def _read_blocks(
        self, connection: Connection, levels: Sequence[str], since: float
    ) -> list[Row]:
        newest = max(self._blocks, default=0)
        first = max(0, newest - _BLOCKS_BACK) << _BLOCK_BITS
        rows = connection.query(
            f"SELECT {_COLUMNS} FROM log_entry WHERE id >= %s AND received_at > %s"  # noqa: S608
            " AND level = ANY(%s) AND NOT (id >> %s = ANY(%s::bigint[]))"
            f" ORDER BY id LIMIT {_AT_ONCE}",
            (first, since, list(levels), _BLOCK_BITS, list(self._blocks)),
        )
        blocks = list(dict.fromkeys(row[0] >> _BLOCK_BITS for row in rows))
        if len(rows) == _AT_ONCE and len(blocks) > 1:
            # The last one may have more entries, and is read again.
            last = blocks.pop()
            rows = [row for row in rows if row[0] >> _BLOCK_BITS != last]
        for block in blocks:
            self._blocks[block] = None
        for block in sorted(self._blocks)[: -2 * _BLOCKS_BACK]:
            del self._blocks[block]
        self._last_id = 0
        return rows
