"""What the API says of the past is what the aggregation wrote, on each database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from monitor.aggregation import postgres_rows, sqlite_rows
from monitor.aggregation.windows import aggregate
from monitor.messages import Phases, Result
from monitor.probes.checks.http import HttpJob
from monitor.store import Connection, Store
from monitor.store.partitions import create_partitions
from monitor.web.jobs.history import last_known, metric_windows, results_before, uptimes
from monitor.web.timeline.outages import search

NOW = 1_800_000_000.0  # on a minute


def result(job_id: int, at: float, *, up: bool = True) -> Result:
    return Result(
        job_id=job_id,
        url="http://x/",
        scheduled_at=at,
        checked_at=at + 0.5,
        up=up,
        status=200 if up else 503,
        response_time=0.1,
        duration=0.1,
        error=None if up else "bad-status: 503",
        matched=True,
        phases=Phases(connect=0.05),
    )


async def read(store: Store, results: list[Result], *ask: Callable[[Connection], Any]) -> list[Any]:
    def write(connection: Connection) -> None:
        rows: Any = sqlite_rows
        if connection.dialect == "postgresql":
            rows = postgres_rows
            create_partitions(
                connection,
                "availability_result",
                since=NOW - 2 * 86400,
                until=NOW + 86400,
                width_s=postgres_rows.PARTITION_S,
            )
        rows.insert_results(connection, results, rows.result_rows(results))
        windows = aggregate(results, ["minute", "hour", "day"])
        rows.add_metrics(connection, rows.metric_rows(windows))

    await store.transaction(write)
    return [await store.read(each) for each in ask]


async def test_results_come_back_as_they_were_published(store: Store) -> None:
    results = [result(1, NOW + n, up=n != 2) for n in range(5)] + [result(2, NOW)]

    def page(connection: Connection) -> list[Result]:
        return results_before(connection, 1, since=NOW + 1, until=NOW + 4, before=None, limit=9)

    def rest(connection: Connection) -> list[Result]:
        return results_before(connection, 1, since=0, until=NOW + 9, before=(NOW + 2, ""), limit=1)

    found, older = await read(store, results, page, rest)
    assert found == [results[3], results[2], results[1]]
    assert older == [results[1]]


async def test_windows_and_uptime_leave_out_what_was_not_checked(store: Store) -> None:
    minutes = [0, 0, 1, 3]  # the third minute is a gap
    results = [result(1, NOW + 60 * m + n, up=m != 3) for n, m in enumerate(minutes)]

    def windows(connection: Connection) -> Any:
        return metric_windows(connection, 1, "minute", since=NOW, until=NOW + 240, limit=10)

    def bars(connection: Connection) -> Any:
        return uptimes(connection, [1, 7], "minute", windows=5, now=NOW + 239)

    found, (first, unknown) = await read(store, results, windows, bars)
    assert [each.start for each in found] == [NOW, NOW + 60, NOW + 180]
    assert [each.checks for each in found] == [2, 1, 1]
    assert [each.failures for each in found] == [0, 0, 1]
    assert found[0].p50 == pytest.approx(0.1, rel=0.02)
    assert found[2].status == {"503": 1}
    assert first.start == NOW - 60
    assert first.checks == [0, 2, 1, 0, 1]
    assert first.failures == [0, 0, 0, 0, 1]
    assert unknown.checks == [0] * 5


async def test_since_when_a_job_is_as_it_is(store: Store) -> None:
    turned = [result(1, NOW - 100 + 10 * n, up=n < 4) for n in range(10)]
    fresh = [result(2, NOW - 50 + n) for n in range(3)]
    always = [result(3, NOW - 86400 + 60 * n) for n in range(1400)]

    def ask(connection: Connection) -> Any:
        return last_known(
            connection, [HttpJob(id=i, url="http://x/") for i in (1, 2, 3, 4)], now=NOW
        )

    (found,) = await read(store, turned + fresh + always, ask)
    assert set(found) == {1, 2, 3}
    assert (found[1].since, found[1].turned) == (NOW - 60, True)
    assert found[1].result == turned[-1]
    assert (found[2].since, found[2].turned) == (NOW - 50, False)
    # Up for as long as was looked back, and perhaps for longer.
    assert (found[3].since, found[3].turned) == (None, False)


async def test_a_job_that_is_checked_seldom_keeps_its_last_state(store: Store) -> None:
    daily = HttpJob(id=1, url="http://x/", interval=86400)
    often = HttpJob(id=2, url="http://x/", interval=60)
    old = [result(1, NOW - 1.5 * 86400, up=False), result(2, NOW - 1.5 * 86400)]
    (found,) = await read(store, old, lambda c: last_known(c, [daily, often], now=NOW))
    assert set(found) == {1}
    assert not found[1].result.up


async def test_locations_that_are_too_few_say_neither_down_nor_the_end_of_it(store: Store) -> None:
    def told(job_id: int, ago: float, location: str, *, up: bool) -> Result:
        one = result(job_id, NOW - ago, up=up)
        return msgspec.structs.replace(one, location=location, quorum=2)

    # brno is silent for the last 900 s.
    results = [
        *(told(1, 1000 - 60 * n, "prague", up=False) for n in range(16)),
        *(told(n, 1001, "brno", up=n == 3) for n in (2, 3)),
        *(told(2, 1000 - 60 * n, "prague", up=False) for n in range(16)),
        *(told(3, 1000 - 60 * n, "prague", up=n < 15) for n in range(16)),
    ]
    jobs = [HttpJob(id=number, url="http://x/") for number in (1, 2, 3)]
    found, outages = await read(
        store,
        results,
        lambda c: last_known(c, jobs, now=NOW),
        lambda c: search(c, since=NOW - 2000, until=NOW).outages,
    )
    assert found[1].result is None
    assert found[2].result == results[33]
    assert found[3].result == results[-2]
    assert [each.since for each in found.values()] == [None, None, None]
    assert [[each.location for each in last.located] for last in found.values()] == [["prague"]] * 3
    assert [(each.job_id, each.start, each.end) for each in outages] == [(2, NOW - 1000, None)]
