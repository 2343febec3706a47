"""Keeps a table within its bytes: deletes the oldest entries.

An entry counts with its message, its sender and 100 bytes for the rest. Sizes are summed up for new
rows only; all rows are counted at the start, and again before anything is deleted, as other
instances delete, too.
"""

from __future__ import annotations

import functools
from typing import Final, Literal

from monitor.store import Connection, Store

__all__ = ["Quota", "Table"]

Table = Literal["log_entry", "notification"]

_ROW_BYTES: Final = 100
# Of the limit: deleted at once, so that the rows are counted rarely.
_SHARE: Final = 0.05
# Rows of one transaction. On SQLite it blocks all other writers.
_STEP: Final = {"postgresql": 20_000, "sqlite": 1_000}
_COUNT_TIMEOUT_S: Final = 120.0


class Quota:
    """The size of one table; for the thread of the loop."""

    def __init__(self, store: Store, table: Table) -> None:
        self._store = store
        self._table = table
        self._bytes = 0
        self._last_id: int | None = None
        self.deleted = 0
        """How many entries were deleted, since the start."""

    async def enforce(self, max_bytes: int | None) -> int:
        """Delete the oldest entries beyond ``max_bytes``; return how many. Raises MonitorError."""
        if max_bytes is None:
            self._last_id = None
            return 0
        await self._count(self._last_id)
        if self._bytes <= max_bytes:
            return 0
        await self._count(None)
        excess = self._bytes - max_bytes
        if excess <= 0:
            return 0
        excess += int(max_bytes * _SHARE)
        before = self.deleted
        while excess > 0:
            rows, freed = await self._store.transaction(
                functools.partial(self._delete, excess=excess)
            )
            if not rows:
                break
            self.deleted += rows
            self._bytes -= freed
            excess -= freed
        return self.deleted - before

    async def _count(self, after: int | None) -> None:
        def count(connection: Connection) -> tuple[int, int | None]:
            where, values = ("", ()) if after is None else (" WHERE id > %s", (after,))
            ((size, last),) = connection.query(
                f"SELECT sum({_size(connection)}), max(id) FROM {self._table}{where}",  # noqa: S608
                values,
            )
            return int(size or 0), last

        size, last = await self._store.read(count, timeout=_COUNT_TIMEOUT_S)
        self._bytes = size if after is None else self._bytes + size
        self._last_id = after if last is None else int(last)

    def _delete(self, connection: Connection, excess: int) -> tuple[int, int]:
        """Delete the oldest rows of one step; return how many, and their bytes."""
        rows = connection.query(
            f"SELECT time, id, {_size(connection)} FROM {self._table} ORDER BY time, id LIMIT %s",  # noqa: S608
            (_STEP[connection.dialect],),
        )
        if not rows:
            return 0, 0
        freed = count = 0
        while count < len(rows) and freed < excess:
            freed += int(rows[count][2])
            count += 1
        time, number, _ = rows[count - 1]
        # The first condition lets PostgreSQL skip partitions.
        deleted = connection.execute(
            f"DELETE FROM {self._table} WHERE time <= %s AND (time, id) <= (%s, %s)",  # noqa: S608
            (time, time, number),
        )
        return deleted, freed


def _size(connection: Connection) -> str:
    if connection.dialect == "postgresql":
        return f"(octet_length(message) + octet_length(sender) + {_ROW_BYTES})"
    return f"(length(CAST(message AS BLOB)) + length(CAST(sender AS BLOB)) + {_ROW_BYTES})"
