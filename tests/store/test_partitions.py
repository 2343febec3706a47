"""Time partitions: the plan by properties, the rest on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.store import Connection, DatabaseSettings
from monitor.store.partitions import create_partitions, drop_partitions, plan_partitions
from tests.store.opened import opened

existing_ranges = st.lists(st.integers(-50, 50), unique=True, max_size=8).map(
    lambda ends: list(zip(sorted(ends)[::2], sorted(ends)[1::2], strict=False))
)


@given(existing_ranges, st.floats(-60, 60), st.floats(0, 40), st.integers(1, 30))
def test_every_instant_gets_exactly_one_partition(
    existing: list[tuple[int, int]], since: float, length: float, width_s: int
) -> None:
    until = since + length
    added = plan_partitions(existing, since, until, width_s)
    together = sorted([*existing, *added])
    for (_, end), (start, _) in itertools.pairwise(together):
        assert end <= start
    assert all(0 < end - start <= width_s for start, end in added)
    for instant in (since, until, (since + until) / 2):
        assert sum(start <= instant < end for start, end in together) == 1
    assert plan_partitions(together, since, until, width_s) == []


@pytest.mark.integration_test
async def test_partitions_are_made_where_rows_go_and_dropped_whole(postgres_url: str) -> None:
    async with opened(DatabaseSettings(url=postgres_url)) as store:
        table = "availability_result"

        def create(connection: Connection, since: float, until: float, width: int) -> object:
            return create_partitions(connection, table, since=since, until=until, width_s=width)

        assert await store.transaction(lambda c: create(c, 100.5, 250.0, 100)) == [
            (100, 200),
            (200, 300),
        ]
        both = [store.transaction(lambda c: create(c, -10.0, 350.0, 150)) for _ in range(2)]
        added = [found for found in await asyncio.gather(*both) if found]
        assert added == [[(-150, 0), (0, 100), (300, 450)]]
        insert = (
            f"INSERT INTO {table} (job_id, scheduled_at, checked_at, url, kind, up)"
            " SELECT 1, at, at, '', 'http', true FROM generate_series(-150, 449) at"
        )
        assert await store.transaction(lambda c: c.execute(insert)) == 600
        assert await drop_partitions(store, table, before=299.0) == [
            (-150, 0),
            (0, 100),
            (100, 200),
        ]
        rest = f"SELECT count(*), min(scheduled_at) FROM {table}"
        assert await store.read(lambda c: c.query(rest)) == [(250, 200.0)]
