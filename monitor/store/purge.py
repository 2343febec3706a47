"""Deletes rows in small transactions, so that others never wait long for a purge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from monitor.store.interface import Connection, Store

__all__ = ["delete_in_steps", "give_pages_back"]

_TARGET_S = 0.010  # duration of a step with its commit; others wait for at most one step
# The commit itself has a fixed cost: on a slow disk, smaller steps only mean more commits.
_LEAST, _MOST = 200, 5000
_KEEP_FREE_PAGES = 1000  # 4 MB for the next rows


async def delete_in_steps(store: Store, delete: Callable[[Connection, int], int]) -> int:
    """Call ``delete(connection, limit)`` until it deletes fewer than ``limit`` rows.

    Each call is one transaction. ``limit`` is adjusted so that it takes about 10 ms, and a pause of
    the same length follows it. Returns the number of deleted rows.
    """
    limit, total = _LEAST, 0
    while True:

        def step(connection: Connection, limit: int = limit) -> int:
            return delete(connection, limit)

        deleted, spent = await store.timed(step)
        total += deleted
        if deleted < limit:
            return total
        fitted = int(limit * _TARGET_S / max(spent, 1e-4))
        limit = min(max(fitted, limit // 2, _LEAST), limit * 2, _MOST)
        await asyncio.sleep(spent)


async def give_pages_back(store: Store) -> None:
    """Return free pages of an SQLite file to the file system, in small steps.

    Some pages stay free for the next rows. Does nothing with PostgreSQL.
    """
    if store.dialect != "sqlite":
        return

    def free(connection: Connection, limit: int) -> int:
        ((pages,),) = connection.query("PRAGMA freelist_count")
        surplus = max(0, min(int(pages) - _KEEP_FREE_PAGES, limit))
        for _ in range(surplus):
            # One page per statement, even with a larger argument: the pragma has a step for
            # each page, and the driver executes one step of a statement without columns.
            connection.execute("PRAGMA incremental_vacuum(1)")
        return surplus

    await delete_in_steps(store, free)
