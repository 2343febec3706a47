"""Deletes in small steps, so that nobody waits long for a purge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from monitor.store.interface import Connection, Store

__all__ = ["delete_in_steps", "give_pages_back"]

_TARGET_S = 0.010  # a step's time, with its commit; others wait for at most one step
# A commit costs what it costs: where the disk is slow, less work in each makes only more of them.
_LEAST, _MOST = 200, 5000
_KEEP_FREE_PAGES = 1000  # 4 MB that the next rows will use


async def delete_in_steps(store: Store, delete: Callable[[Connection, int], int]) -> int:
    """Call ``delete(connection, limit)`` until it deletes fewer than ``limit`` rows.

    Each call is one transaction; ``limit`` is fitted to take about 10 ms, and between two
    of them others have as long. Returns how many rows went.
    """
    limit, total = _LEAST, 0
    while True:

        def step(connection: Connection, limit: int = limit) -> int:
            return delete(connection, limit)

        deleted, spent = await store.timed(step)
        total += deleted
        if deleted < limit:
            return total
        limit = _fitted(limit, spent)
        await asyncio.sleep(spent)


async def give_pages_back(store: Store) -> None:
    """Give an SQLite file's free pages back to the system, in small steps; else nothing.

    Some stay for the rows to come.
    """
    if store.dialect != "sqlite":
        return

    pages = _LEAST
    while True:

        def step(connection: Connection, pages: int = pages) -> int:
            ((free,),) = connection.query("PRAGMA freelist_count")
            surplus = int(free) - _KEEP_FREE_PAGES
            for _ in range(min(pages, surplus)):
                # A page each, whatever number it is given: it has a step for each page, and the
                # driver takes the first step of a statement without columns for its last.
                connection.execute("PRAGMA incremental_vacuum(1)")
            return surplus

        surplus, spent = await store.timed(step)
        if surplus <= pages:
            return
        pages = _fitted(pages, spent)
        await asyncio.sleep(spent)


def _fitted(limit: int, spent: float) -> int:
    """Return how much takes about as long as a step should, where ``limit`` took ``spent`` s."""
    fitted = int(limit * _TARGET_S / max(spent, 1e-4))
    return min(max(fitted, limit // 2, _LEAST), limit * 2, _MOST)
