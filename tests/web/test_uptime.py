"""Uptime is reckoned by time: a window counts for what it lasts, however many checks it has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.aggregation import postgres_rows, sqlite_rows
from monitor.aggregation.windows import aggregate
from monitor.messages import Result
from monitor.store import Connection, Store
from monitor.web.jobs.uptime import SPANS_S, Counted, job_uptimes, merged, reckon

HOUR, DAY = 3600, 86400
NOW = 20_000 * DAY  # on a day


def test_an_outage_counts_for_the_time_that_it_lasted() -> None:
    windows = [Counted(NOW - DAY + n * HOUR, HOUR, 60, 30 if n == 5 else 0) for n in range(24)]
    found = reckon(windows, since=NOW - DAY, until=NOW)
    assert (found.down_s, found.known_s) == (1800, DAY)
    assert found.up == pytest.approx(1 - 1800 / DAY)


def test_an_hour_with_many_more_checks_than_others_counts_as_one_hour() -> None:
    seldom = [Counted(NOW - n * HOUR, HOUR, 4, 0) for n in range(2, 25)]
    often = Counted(NOW - HOUR, HOUR, 3600, 3600)
    found = reckon([*seldom, often], since=NOW - DAY, until=NOW)
    # By checks it would have been 97 % down.
    assert found.down_s == HOUR
    assert found.up == pytest.approx(23 / 24)


def test_time_without_checks_is_neither_up_nor_down() -> None:
    found = reckon([Counted(NOW - HOUR, HOUR, 2, 1)], since=NOW - DAY, until=NOW)
    assert (found.up, found.known_s) == (0.5, HOUR)
    nothing = reckon([], since=NOW - DAY, until=NOW)
    assert (nothing.up, nothing.known_s) == (None, 0)


def test_windows_at_both_ends_count_for_the_part_inside() -> None:
    windows = [Counted(0, HOUR, 1, 1), Counted(HOUR, HOUR, 1, 0)]
    found = reckon(windows, since=HOUR / 2, until=1.25 * HOUR)
    assert (found.down_s, found.known_s) == (HOUR / 2, 0.75 * HOUR)


def test_a_day_is_taken_where_no_hour_of_it_is_kept() -> None:
    hours = [Counted(DAY + 5 * HOUR, HOUR, 1, 0)]
    days = [Counted(0, DAY, 24, 12), Counted(DAY, DAY, 1, 0)]
    assert merged(hours, days) == [hours[0], days[0]]


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 1)), max_size=60),
    st.integers(0, 40 * HOUR),
)
def test_no_time_is_counted_twice(rates: list[tuple[int, float]], age: int) -> None:
    windows = [
        Counted(NOW - age - n * HOUR, HOUR, checks, int(checks * share))
        for n, (checks, share) in enumerate(rates)
    ]
    for span in SPANS_S.values():
        found = reckon(windows, since=NOW - span, until=NOW)
        assert 0 <= found.down_s <= found.known_s + 1e-3
        assert found.known_s <= span
        assert found.up is None or -1e-9 <= found.up <= 1


async def test_the_database_gives_all_spans_of_a_job(store: Store) -> None:
    def result(at: float, up: bool) -> Result:
        return Result(job_id=1, url="http://x/", scheduled_at=at, checked_at=at, up=up)

    # Half an hour down two days ago, and nothing older than ten days.
    results = [
        result(NOW - n * 600, up=not 2 * DAY < n * 600 <= 2 * DAY + 1800) for n in range(1, 1440)
    ]

    def write(connection: Connection) -> None:
        rows: Any = postgres_rows if connection.dialect == "postgresql" else sqlite_rows
        rows.add_metrics(connection, rows.metric_rows(aggregate(results, ["hour", "day"])))

    await store.transaction(write)
    ours, other = await store.read(lambda c: job_uptimes(c, [1, 2], now=NOW))
    assert ours.spans["24h"].up == 1
    assert ours.spans["7d"].down_s == 1800
    assert ours.spans["7d"].up == pytest.approx(1 - 1800 / (7 * DAY))
    assert ours.spans["90d"].known_s == pytest.approx(10 * DAY, abs=HOUR)
    assert all(span.up is None for span in other.spans.values())
