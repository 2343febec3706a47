"""What is too old goes, and nothing else."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from monitor.aggregation.retention import MARGIN_S, purge
from monitor.aggregation.settings import AggregationSettings, KeepMetrics
from monitor.store import Connection, DatabaseSettings, Store
from tests.aggregation.plain import TOPIC, read_tables, record, result
from tests.aggregation.test_writer import write
from tests.store.opened import opened

DAY = 86400
NOW = 20_000 * DAY + 1000.0
SETTINGS = AggregationSettings(
    keep_results=3 * DAY,
    keep_rejected=2 * DAY,
    keep_metrics=KeepMetrics(minute=DAY, hour=5 * DAY, day=None),
)


def left(connection: Connection) -> dict[str, Any]:
    dt = "extract(epoch FROM dt)::bigint" if connection.dialect == "postgresql" else "dt"
    return {
        "results": [
            at
            for (at,) in connection.query(
                "SELECT scheduled_at FROM availability_result ORDER BY scheduled_at"
            )
        ],
        "metrics": Counter(
            granularity
            for (granularity,) in connection.query("SELECT granularity FROM availability_metric")
        ),
        "oldest": dict(
            connection.query(
                f"SELECT granularity, min({dt}) FROM availability_metric GROUP BY granularity"
            )
        ),
        "rejected": connection.query("SELECT count(*) FROM rejected_message"),
    }


async def test_each_table_keeps_what_it_is_to_keep(store: Store) -> None:
    await keeps_what_it_is_to_keep(store)


# As an administrator may divide them: rows of several partitions have the same ctid.
PARTITIONED = f"""
CREATE TABLE mine PARTITION OF availability_result
    FOR VALUES FROM ({NOW - 9.5 * DAY}) TO ({NOW + 1}) PARTITION BY HASH (scheduled_at);
CREATE TABLE mine_0 PARTITION OF mine FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE mine_1 PARTITION OF mine FOR VALUES WITH (MODULUS 2, REMAINDER 1);
ALTER TABLE availability_metric RENAME TO metric_of_before;
CREATE TABLE availability_metric (LIKE metric_of_before INCLUDING DEFAULTS,
    PRIMARY KEY (job_id, dt, granularity, location)) PARTITION BY LIST (granularity);
CREATE TABLE metric_minute PARTITION OF availability_metric FOR VALUES IN ('minute');
CREATE TABLE metric_hour PARTITION OF availability_metric FOR VALUES IN ('hour');
CREATE TABLE metric_day PARTITION OF availability_metric FOR VALUES IN ('day');
"""


@pytest.mark.integration_test
async def test_tables_that_somebody_partitioned_keep_the_same(postgres_url: str) -> None:
    async with opened(DatabaseSettings(url=postgres_url)) as store:
        await store.transaction(lambda c: c.execute(PARTITIONED))
        await keeps_what_it_is_to_keep(store)


async def keeps_what_it_is_to_keep(store: Store) -> None:
    instants = [NOW - 12 * 3600 * number for number in range(20)]
    log = [record(offset, result(1, at)) for offset, at in enumerate(instants)]
    await store.transaction(lambda c: write(c, log, {0: None}, now=NOW))
    for offset, at in ((20, NOW - 3 * DAY), (21, NOW - DAY)):
        poison = [record(offset, b"poison")]
        await store.transaction(
            lambda c, poison=poison, at=at, offset=offset: write(  # type: ignore[misc]
                c, poison, {0: offset}, now=at
            )
        )
    purged = await purge(store, SETTINGS, now=NOW)
    found = await store.read(left)
    must_stay = [at for at in sorted(instants) if at >= NOW - 3 * DAY - MARGIN_S]
    # PostgreSQL drops whole days.
    extra = [at for at in found["results"] if at < NOW - 3 * DAY - MARGIN_S]
    assert found["results"] == extra + must_stay
    assert all(at >= NOW - 4 * DAY - MARGIN_S for at in extra)
    assert store.dialect == "postgresql" or not extra
    assert found["rejected"] == [(1,)]
    assert purged.rejected == 1
    minutes = [at for at in instants if at // 60 * 60 >= NOW - DAY]
    hours = [at for at in instants if at // 3600 * 3600 >= NOW - 5 * DAY]
    days = {at // DAY for at in instants}
    assert found["metrics"] == {"minute": len(minutes), "hour": len(hours), "day": len(days)}
    assert purged.metrics == {"minute": 20 - len(minutes), "hour": 20 - len(hours)}
    again = await purge(store, SETTINGS, now=NOW)
    assert (again.results, again.rejected, again.metrics) == (0, 0, {"minute": 0, "hour": 0})
    assert await store.read(left) == found


async def test_a_large_purge_in_small_steps_leaves_no_row_and_gives_the_space_back(
    store: Store,
) -> None:
    rows = [
        (TOPIC, 0, offset, NOW - 10 * DAY, "not-a-result", b"x" * 1000) for offset in range(8_000)
    ]
    columns = ("topic", "partition", '"offset"', "rejected_at", "reason", "payload")
    await store.transaction(lambda c: c.insert("rejected_message", columns, rows))
    purged = await purge(store, SETTINGS, now=NOW)
    assert purged.rejected == 8_000
    if store.dialect == "sqlite":
        ((pages,),) = await store.read(lambda c: c.query("PRAGMA page_count"))
        ((free,),) = await store.read(lambda c: c.query("PRAGMA freelist_count"))
        assert free <= 1000
        assert pages < 1500  # of the 2000 and more that it took


async def test_a_late_result_does_not_bring_a_purged_window_back(store: Store) -> None:
    settings = AggregationSettings(keep_metrics=KeepMetrics(minute=3600, hour=7200, day=None))
    old = result(1, NOW - 5 * 3600)
    await store.transaction(lambda c: write(c, [record(0, old)], {0: None}, now=NOW))
    await purge(store, settings, now=NOW)
    # Also where metrics are to be kept for longer from now on.
    late = result(1, NOW - 5 * 3600 + 1)
    await store.transaction(
        lambda c: write(c, [record(1, late), record(2, result(1, NOW))], {0: 1}, now=NOW)
    )
    found = await store.read(read_tables)
    assert len(found.results) == 3
    assert {key[2] for key in found.metrics if key[1] <= NOW - 3 * 3600 + 1} == {"day"}
    assert sum(row[0] for key, row in found.metrics.items() if key[2] == "day") == 3
    assert sum(row[0] for key, row in found.metrics.items() if key[2] == "minute") == 1
