"""A store that is ready to be used, for as long as a test needs it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from monitor.store import DatabaseSettings, Store, migrate, open_store

__all__ = ["opened"]


# What a new SQLite file holds after these migrations: made once, then copied by all tests.
_tables: dict[tuple[str, ...], bytes] = {}


async def _make_tables() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "monitor.db"
        store = open_store(DatabaseSettings(file=str(file)))
        await store.migrate()
        await store.close()
        return file.read_bytes()


@contextlib.asynccontextmanager
async def opened(database: DatabaseSettings) -> AsyncIterator[Store]:
    """Give a store with its tables."""
    file = Path(database.file)
    if database.url is None and file.is_absolute() and not file.exists():
        steps = tuple(map(str, migrate.load()))
        if steps not in _tables:
            _tables[steps] = await _make_tables()
        file.touch(0o600)
        file.write_bytes(_tables[steps])
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
