"""Several processes that make the same SQLite file at once, as units that start together do."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from monitor.bus.spool_opening import open_spool
from monitor.store import DatabaseSettings, open_store

pytestmark = pytest.mark.integration_test

PROCESSES = 4
FILES = 60

_together: Barrier


def _keep(together: Barrier) -> None:
    global _together  # noqa: PLW0603 - a process of a pool has no other place
    _together = together


@pytest.fixture(scope="module")
def processes() -> Iterator[Pool]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES, _keep, (context.Barrier(PROCESSES),)) as pool:
        yield pool


def _make_spools(paths: list[Path]) -> list[str]:
    problems = []
    for path in paths:
        _together.wait(60)
        try:
            open_spool(path, max_bytes=1 << 20).close()
        except Exception as error:  # noqa: BLE001 - reported by the test
            problems.append(repr(error))
    return problems


def _make_tables(paths: list[Path]) -> list[str]:
    async def make(path: Path) -> None:
        store = open_store(DatabaseSettings(file=str(path)))
        try:
            await store.migrate()
        finally:
            await store.close()

    problems = []
    for path in paths:
        _together.wait(60)
        try:
            asyncio.run(make(path))
        except Exception as error:  # noqa: BLE001 - reported by the test
            problems.append(repr(error))
    return problems


@pytest.mark.parametrize("make", [_make_spools, _make_tables])
def test_processes_that_make_a_file_at_once_all_open_it(
    make: Callable[[list[Path]], list[str]], processes: Pool, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(FILES)]

    problems = processes.map_async(make, [paths] * PROCESSES, chunksize=1).get(120)

    assert problems == [[]] * PROCESSES
