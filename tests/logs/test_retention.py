from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monitor.logs.retention import KEEP_UPLOAD_IDS_S
from monitor.store import Connection, DatabaseSettings, Store
from tests.logs.running import NOW, Client, Clock, line, running
from tests.store.opened import opened
from tests.waiting import until


def count(table: str = "log_entry") -> Callable[[Connection], int]:
    return lambda connection: int(connection.query(f"SELECT count(*) FROM {table}")[0][0])


async def test_what_is_older_than_the_window_is_gone_for_good(store: Store) -> None:
    clock = Clock()
    async with running(store, clock, timewindow=600) as logs:
        client = Client(logs)
        for minute in range(10):
            await client.upload(*"xyz", time=NOW - 60 * minute - 1)
        assert await store.read(count()) == 30
        await logs.retain()
        assert await store.read(count()) == 30
        clock.now += 180
        await logs.retain()
        assert await store.read(count()) == 21
        assert await client.texts() == [*"zyx"] * 7
        clock.now += 600
        await logs.retain()
        assert await store.read(count()) == 0
        assert logs.purged >= 0
        assert (await client.upload("new", time=clock.now))["accepted"] == 1
        assert await client.texts() == ["new"]


async def test_upload_ids_are_forgotten_in_the_end(store: Store) -> None:
    clock = Clock()
    async with running(store, clock) as logs:
        client = Client(logs)
        for number in range(30):
            await client.ask("uploadLogs", upload_id=str(number), logs=[])
        clock.now += KEEP_UPLOAD_IDS_S - 1
        await logs.retain()
        assert await store.read(count("log_upload")) == 30
        clock.now += 2
        await logs.retain()
        assert await store.read(count("log_upload")) == 0


@pytest.mark.integration_test
async def test_postgres_drops_whole_partitions_and_deletes_the_head_of_the_next(
    postgres_url: str,
) -> None:
    def partitions(connection: Connection) -> list[str]:
        rows = connection.query(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'log_entry'::regclass ORDER BY 1"
        )
        return [name for (name,) in rows]

    start = 1_700_000_040.0  # where a partition begins
    clock = Clock(start + 90)
    database = DatabaseSettings(url=postgres_url)
    async with opened(database) as store, running(store, clock, timewindow=120) as logs:
        client = Client(logs)
        for second in range(0, 90, 10):
            await client.upload(str(second), time=start + second)
        names = await store.read(partitions)
        assert f"log_entry_{start:.0f}_{start + 60:.0f}" in names
        clock.now = start + 120 + 25
        await logs.retain()
        assert (await store.read(partitions))[0] == f"log_entry_{start:.0f}_{start + 60:.0f}"
        assert await store.read(count()) == 6
        clock.now = start + 120 + 65
        await logs.retain()
        assert (await store.read(partitions))[0] > f"log_entry_{start:.0f}_{start + 60:.0f}"
        assert await store.read(count()) == 2
        # Those of the near future are there before anyone writes to them.
        names = await store.read(partitions)
        assert names[-1].endswith(f"_{start + 360:.0f}")
        assert (await client.upload("ahead", time=clock.now + 3600))["accepted"] == 1


@pytest.mark.integration_test
async def test_a_window_that_changes_keeps_what_is_there(postgres_url: str) -> None:
    clock = Clock()
    database = DatabaseSettings(url=postgres_url)
    async with opened(database) as store:
        for window in (60, 7200, 86_400, 1440, 3600):
            async with running(store, clock, timewindow=window) as logs:
                await logs.retain()
                for ahead in (0, 50, 300, 3600):
                    answer = await Client(logs).upload("x", time=clock.now + ahead)
                    assert answer["accepted"] == 1, answer
            clock.now += 40
        async with running(store, clock, timewindow=3600) as logs:
            assert len(await Client(logs).texts()) == 20


async def test_sqlite_gives_space_back_and_holds_up_no_upload_meanwhile(tmp_path: Path) -> None:
    """What bounds an upload's wait is how many steps go before it; how long they take is measured
    elsewhere.
    """
    file = tmp_path / "monitor.db"

    clock = Clock()
    async with (
        opened(DatabaseSettings(file=str(file))) as store,
        running(store, clock, timewindow=600, max_entries_per_second=10**6) as logs,
    ):
        client = Client(logs)
        for _ in range(40):
            await client.ask("uploadLogs", logs=[line("x" * 300) for _ in range(1000)])
        await until(lambda: file.stat().st_size > 12_000_000)
        steps = 0
        transaction = store.transaction

        async def counted(function: Any, **options: float) -> Any:
            nonlocal steps
            if asyncio.current_task() is purging:
                steps += 1
            return await transaction(function, **options)

        store.transaction = counted  # type: ignore[method-assign]
        clock.now += 1000
        purging = asyncio.create_task(logs.retain())
        uploads, longest = 0, 0
        while not purging.done():
            before = steps
            answer = await client.upload("new", time=clock.now)
            uploads += answer["accepted"]
            longest = max(longest, steps - before)
        await purging
        assert steps > 10, "it was not done in steps"
        assert longest < 6, "an upload waited for many steps"
        assert await store.read(count()) == uploads
        await until(lambda: file.stat().st_size < 6_000_000)
