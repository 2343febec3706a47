"""Deletes in small steps, so that nobody waits long for a purge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from monitor.store.interface import Connection, Store

__all__ = ["delete_in_steps", "give_pages_back"]

_TARGET_S = 0.015  # a step's time; others wait for at most one step
_LEAST, _MOST = 20, 5000
_VACUUM_PAGES = 100
_KEEP_FREE_PAGES = 1000  # 4 MB that the next rows will use


async def delete_in_steps(
    store: Store,
    delete: Callable[[Connection, int], int],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Call ``delete(connection, limit)`` until it deletes fewer than ``limit`` rows.

    Each call is one transaction; ``limit`` is fitted to take about 15 ms, and between two
    of them others have as long. Returns how many rows went.
    """
    limit, total = 200, 0
    while True:
        spent = 0.0

        def step(connection: Connection) -> int:
            nonlocal spent
            begun = clock()
            deleted = delete(connection, limit)  # noqa: B023 - it runs at once
            spent = clock() - begun
            return deleted

        deleted = await store.transaction(step)
        total += deleted
        if deleted < limit:
            return total
        fitted = int(limit * _TARGET_S / max(spent, 1e-4))
        limit = min(max(fitted, limit // 2, _LEAST), limit * 2, _MOST)
        await asyncio.sleep(spent)


async def give_pages_back(store: Store) -> None:
    """Give an SQLite file's free pages back to the system, in small steps; else nothing.

    Some stay for the rows to come.
    """
    if store.dialect != "sqlite":
        return

    def step(connection: Connection) -> int:
        begun = time.monotonic()
        while True:
            ((free,),) = connection.query("PRAGMA freelist_count")
            if free <= _KEEP_FREE_PAGES or time.monotonic() - begun > _TARGET_S:
                return int(free)
            connection.query(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    while True:
        if await store.transaction(step) <= _KEEP_FREE_PAGES:
            return
        await asyncio.sleep(_TARGET_S)
