"""The timeline from both databases."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from monitor import messages
from monitor.aggregation import postgres_rows, sqlite_rows
from monitor.aggregation.windows import aggregate
from monitor.cluster.events import DEPLOYED, FAILED, POD_READY, ROLLED_BACK, UPGRADED
from monitor.errors import UnavailableError
from monitor.messages import ModelEvent, Result
from monitor.relay.feed import Outage as FeedOutage
from monitor.store import Connection, Store
from monitor.store.partitions import create_partitions
from monitor.web.timeline.bursts import bursts_of, count_errors
from monitor.web.timeline.outages import (
    Outage,
    search,
)
from monitor.web.timeline.reading import Range, TimelineReader
from tests.web.test_timeline import DAY, HOUR, NOW


def write_results(results: list[Result]) -> Any:
    def write(connection: Connection) -> None:
        rows: Any = sqlite_rows
        if connection.dialect == "postgresql":
            rows = postgres_rows
            create_partitions(
                connection,
                "availability_result",
                since=NOW - 3 * DAY,
                until=NOW + DAY,
                width_s=postgres_rows.PARTITION_S,
            )
        rows.insert_results(connection, results, rows.result_rows(results))
        windows = aggregate(results, ["minute", "hour", "day"])
        rows.add_metrics(connection, rows.metric_rows(windows))

    return write


def results(job_id: int, begin: float, end: float, step: float, *bad: tuple[float, float]) -> Any:
    at = begin
    while at < end:
        up = not any(start <= at < stop for start, stop in bad)
        yield Result(
            job_id=job_id,
            url="http://x/",
            scheduled_at=at,
            checked_at=at,
            up=up,
            error=None if up else "refused: x",
        )
        at += step


async def test_outages_have_the_times_of_their_results(store: Store) -> None:
    bad = (NOW - 5 * HOUR + 30, NOW - 4 * HOUR + 90)
    still = (NOW - 600, NOW)
    await store.transaction(
        write_results(
            [
                *results(1, NOW - 10 * HOUR, NOW, 30, bad, still),
                *results(2, NOW - 10 * HOUR, NOW, 300),
                # An hourly one, whose recovery is in a window without failures.
                *results(3, NOW - 10 * HOUR, NOW, HOUR, (NOW - 3 * HOUR, NOW - 2.5 * HOUR)),
            ]
        )
    )

    async def find(**more: Any) -> list[tuple[int, float, float | None]]:
        found = await store.read(lambda c: search(c, until=NOW, **more))
        assert not found.cut
        assert {each.error for each in found.outages} <= {"refused: x"}
        return sorted((each.job_id, each.start, each.end) for each in found.outages)

    hourly = (3, NOW - 3 * HOUR, NOW - 2 * HOUR)
    everything = [(1, *bad), (1, NOW - 600, None), hourly]
    assert await find(since=NOW - DAY) == everything
    assert await find(since=NOW - DAY, job_id=3) == [hourly]
    # One that began before the range has its true begin, in each granularity.
    assert await find(since=NOW - 300) == [(1, NOW - 600, None)]
    assert await find(since=NOW - 20 * DAY) == everything


async def test_outages_whose_results_are_gone_have_the_times_of_windows(store: Store) -> None:
    start = NOW - NOW % HOUR - 5 * HOUR

    def write(connection: Connection) -> None:
        rows: Any = sqlite_rows if connection.dialect == "sqlite" else postgres_rows
        old = list(results(1, start, start + 5 * HOUR, 60, (start + HOUR, start + 1.5 * HOUR)))
        rows.add_metrics(connection, rows.metric_rows(aggregate(old, ["hour"])))

    await store.transaction(write)
    found = await store.read(lambda c: search(c, since=NOW - DAY, until=NOW))
    assert found.outages == [Outage(1, start + HOUR, start + 2 * HOUR, "", rough=True)]


def write_logs(connection: Connection) -> None:
    if connection.dialect == "postgresql":
        create_partitions(connection, "log_entry", since=NOW - DAY, until=NOW, width_s=3600)
    connection.insert(
        "log_entry",
        ("id", "level", "time", "sender", "message", "received_at"),
        [
            (n, level, NOW - 100 + n, sender, "m", NOW)
            for n, (level, sender) in enumerate(
                [("error", "a"), ("info", "a"), ("critical", "b"), ("error", "a"), ("debug", "b")]
            )
        ],
    )


async def test_errors_are_counted_by_sender_and_nothing_else_is(store: Store) -> None:
    await store.transaction(write_logs)
    found = await store.read(lambda c: count_errors(c, since=NOW - 200, until=NOW))
    assert sum(slot.errors for slot in found.slots) == 3
    assert found.since == NOW - 200
    (burst,) = bursts_of(found.slots, width=found.width)
    assert burst.senders == [("a", 2), ("b", 1)]
    only = await store.read(lambda c: count_errors(c, since=NOW - 200, until=NOW, sender="b"))
    assert [(slot.sender, slot.errors) for slot in only.slots] == [("b", 1)]


def write_models(connection: Connection) -> None:
    connection.insert(
        "model_event",
        ("id", "cluster", "type", "source", "key", "time", "data"),
        [
            (
                f"e{n}",
                "c",
                type_,
                "/",
                f"models/{name}",
                NOW - 600 + n,
                messages.encode(
                    ModelEvent(
                        cluster="c",
                        namespace="models",
                        kind="Deployment",
                        name=name,
                        version=version,
                        duration=5.0,
                        cause="x",
                    )
                ).decode(),
            )
            for n, (type_, name, version) in enumerate(
                [
                    (DEPLOYED, "churn", "1.4"),
                    (POD_READY, "churn", None),
                    (UPGRADED, "churn", "1.5"),
                    (FAILED, "hints", "2"),
                    (ROLLED_BACK, "churn", "1.4"),
                ]
            )
        ],
    )


class AllOn:
    """A context with all parts' tables, and no part of its own."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.parts: dict[str, Any] = {}

    def has(self, part: str) -> bool:
        return part in ("aggregation", "cluster", "alerts", "logs")


def reader_of(store: Any, *, now: float = NOW) -> TimelineReader:
    logs = SimpleNamespace(service=SimpleNamespace(settings=SimpleNamespace(timewindow=DAY)))
    feed = SimpleNamespace(outages=[FeedOutage(NOW - 50, NOW - 40)])
    context: Any = AllOn(store)
    return TimelineReader(
        context,
        book=None,
        relay=SimpleNamespace(feed=feed),  # type: ignore[arg-type]
        logs=logs,  # type: ignore[arg-type]
        clock=lambda: now,
    )


async def test_all_lanes_are_on_one_clock(store: Store) -> None:
    await store.transaction(write_logs)
    await store.transaction(write_models)
    await store.transaction(
        write_results(list(results(7, NOW - HOUR, NOW, 30, (NOW - 480, NOW - 120))))
    )
    found = await reader_of(store).read(Range(HOUR))
    assert [(each.lane, each.title) for each in found.events] == [
        ("models", "churn 1.4 was deployed"),
        ("models", "churn 1.5 rolled out"),
        ("models", "the rollout of hints 2 failed"),
        ("models", "churn was rolled back to 1.4"),
        ("incidents", "site 7 down"),
        ("logs", "3 errors of a, b"),
        ("feed", "the relay had lost a broker"),
    ]
    outage = found.events[4]
    assert (outage.start, outage.end) == (NOW - 480, NOW - 120)
    assert outage.said.startswith("site 7 went down 1 min after churn was rolled back to 1.4")
    assert (found.unread, found.cut) == ([], [])


async def test_an_incident_is_told_with_what_happened_before_the_range(store: Store) -> None:
    await store.transaction(write_models)
    await store.transaction(write_results(list(results(7, NOW - HOUR, NOW, 30, (NOW - 480, NOW)))))
    found = await reader_of(store).read(Range(500))
    assert [each.lane for each in found.events] == ["incidents", "feed"]
    assert "after churn was rolled back to 1.4" in found.events[0].said


class Away:
    """A database that is unavailable."""

    async def read(self, function: Any, *, timeout: float) -> Any:
        raise UnavailableError("the database", "away")


async def test_lanes_that_cannot_be_read_are_named_and_the_others_are_shown() -> None:
    found = await reader_of(Away()).read(Range(HOUR))
    assert set(found.unread) == {"incidents", "models", "logs", "maintenance"}
    assert [each.lane for each in found.events] == ["feed"]


class Counting:
    """A store that counts what is read."""

    def __init__(self, store: Store) -> None:
        self.store, self.reads = store, 0

    async def read(self, function: Any, *, timeout: float) -> Any:
        self.reads += 1
        return await self.store.read(function, timeout=timeout)


async def test_pages_that_look_at_the_same_range_share_what_is_read(store: Store) -> None:
    counting = Counting(store)
    reader = reader_of(counting)
    await reader.read(Range(HOUR))
    reads = counting.reads
    assert reads > 0
    await reader.read(Range(HOUR))
    assert counting.reads == reads
    await reader.read(Range(2 * HOUR))
    assert counting.reads == 2 * reads
