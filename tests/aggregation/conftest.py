from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from monitor.store import DatabaseSettings, Store
from tests.store.opened import opened

WithStore = Callable[[Callable[[Store], Coroutine[Any, Any, Any]]], None]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration_test)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    """Settings of an empty database, in turn of each kind."""
    if request.param == "sqlite":
        return DatabaseSettings(file=str(tmp_path / "monitor.db"))
    return DatabaseSettings(url=request.getfixturevalue("postgres_url"))


@pytest.fixture
def with_store(database: DatabaseSettings) -> WithStore:
    """Run a coroutine function with an open store of each kind."""

    def run(test: Callable[[Store], Coroutine[Any, Any, Any]]) -> None:
        async def main() -> None:
            async with opened(database) as store:
                await asyncio.wait_for(test(store), 60)

        asyncio.run(main(), debug=True)

    return run
