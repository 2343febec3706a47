"""A store that is ready to be used, for as long as a test needs it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

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


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration_test)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    """Settings of an empty database, in turn of each kind."""
    if request.param == "sqlite":
        return DatabaseSettings(file=str(tmp_path / "monitor.db"))
    return DatabaseSettings(url=request.getfixturevalue("postgres_url"))


@pytest.fixture
def scratch(tmp_path: Path) -> DatabaseSettings:
    """Settings of an empty SQLite file, for what is the same on every database."""
    return DatabaseSettings(file=str(tmp_path / "monitor.db"))


@pytest.fixture
async def store(database: DatabaseSettings) -> AsyncIterator[Store]:
    """A store with its tables, in turn of each kind."""
    async with opened(database) as store:
        yield store
