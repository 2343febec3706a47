"""A store that is ready to be used, for as long as a test needs it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from monitor.store import DatabaseSettings, Store, open_store

__all__ = ["opened"]


@contextlib.asynccontextmanager
async def opened(database: DatabaseSettings) -> AsyncIterator[Store]:
    """Give a store with its tables."""
    store = open_store(database)
    try:
        await store.migrate()
        yield store
    finally:
        await store.close()
