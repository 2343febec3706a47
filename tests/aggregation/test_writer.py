"""Batches in transactions: whatever crashes, comes twice or comes late, the counts are exact."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.aggregation.batch import Batch, parse_records
from monitor.aggregation.offsets import OffsetsMovedError, Place, stored_places
from monitor.aggregation.writer import Written, prepare, write_batch
from monitor.bus import Record
from monitor.store import Connection, DatabaseSettings, Store, migrate
from monitor.store.sqlite import SqliteConnection
from tests.aggregation.plain import TOPIC, Tables, plain_tables, read_tables, record, result
from tests.examples import examples
from tests.store.opened import opened

NOW = 1_700_000_000.0
KEEP_S = 30 * 86400.0
GRANULARITIES = ["minute", "hour", "day"]


class CrashError(Exception):
    """Stands for the end of a process."""


def batch_of(records: list[Record], now: float) -> Batch:
    return Batch(parse_records(records, now=now, keep_s=1e9))


TOPIC_ID = "one"


def write(
    connection: Connection,
    records: list[Record],
    expected: dict[int, int | None],
    *,
    now: float = NOW,
) -> Written:
    return write_batch(
        connection,
        prepare(batch_of(records, now), GRANULARITIES, connection.dialect, oldest=now - KEEP_S),
        topic=TOPIC,
        topic_id=TOPIC_ID,
        expected={
            partition: None if offset is None else Place(offset, TOPIC_ID)
            for partition, offset in expected.items()
        },
        now=now,
    )


class Consumer:
    """A consumer reduced to what it believes: where the partitions stand."""

    def __init__(self, log: dict[int, list[Record]]) -> None:
        self.log = log
        self.believes: dict[int, int | None] | None = None
        self.held: list[Record] = []

    def fetch(self, connection: Connection, partitions: list[int], count: int) -> None:
        if self.believes is None:
            stored = stored_places(connection, TOPIC)
            self.believes = dict.fromkeys(self.log) | {
                partition: place.start(TOPIC_ID) for partition, place in stored.items()
            }
            self.held = []
        for partition in partitions:
            known = self.believes[partition] or 0
            held = [item for item in self.held if item.partition == partition]
            start = held[-1].offset + 1 if held else known
            self.held += self.log[partition][start : start + count]

    def flush(self, connection: Connection, *, before_commit: bool) -> None:
        assert self.believes is not None
        connection.execute("BEGIN IMMEDIATE")
        try:
            write(
                connection,
                self.held,
                {item.partition: self.believes[item.partition] for item in self.held},
            )
            if before_commit:
                raise CrashError
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        for item in self.held:
            self.believes[item.partition] = item.offset + 1
        self.held = []


messages = st.one_of(
    st.sampled_from([b"{", b"null", b"\xff"]),
    st.builds(
        result,
        st.integers(1, 3),
        st.sampled_from([NOW, NOW + 30, NOW + 59.5, NOW + 3600, NOW - 90000]),
        location=st.sampled_from(["", "prague", "brno"]),
    ),
    st.builds(
        lambda job, at, up, status, time, where: result(
            job, at, up=up, status=status, response_time=time, location=where
        ),
        st.integers(1, 2),
        st.integers(0, 10_000).map(lambda second: NOW + second),
        st.booleans(),
        st.sampled_from([None, 200, 500]),
        st.none() | st.floats(0, 100).map(lambda time: round(time, 4)),
        st.sampled_from(["", "prague", "a\\b\tc"]),
    ),
)

steps = st.tuples(
    st.integers(0, 1),  # which consumer
    st.lists(st.integers(0, 1), min_size=1, max_size=2, unique=True),  # partitions it fetches
    st.integers(1, 6),  # how many of each
    st.sampled_from(["flush", "flush", "wait", "crash before commit", "crash after commit"]),
)


def with_equal_duplicates(log: dict[int, list[Record]]) -> dict[int, list[Record]]:
    """Make duplicates equal: which of two different ones is first is nobody's promise."""
    first: dict[tuple[int, float], bytes] = {}
    changed: dict[int, list[Record]] = {}
    for partition, items in log.items():
        changed[partition] = []
        for item in items:
            try:
                data = json.loads(item.value)
                key = data["job_id"], data["scheduled_at"]
            except (ValueError, TypeError):
                changed[partition].append(item)
                continue
            value = first.setdefault(key, item.value)
            changed[partition].append(msgspec.structs.replace(item, value=value))
    return changed


@contextlib.contextmanager
def memory() -> Iterator[Connection]:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection = SqliteConnection(raw)
        migrate.apply(connection, "memory")
        yield connection
    finally:
        raw.close()


@settings(deadline=None, max_examples=examples(150))
@given(
    st.lists(messages, max_size=25), st.lists(messages, max_size=25), st.lists(steps, max_size=30)
)
def test_any_schedule_of_crashes_and_late_consumers_counts_each_result_once(
    first: list[Any], second: list[Any], schedule: list[Any]
) -> None:
    log = {
        partition: [record(offset, value, partition) for offset, value in enumerate(values)]
        for partition, values in enumerate((first, second))
    }
    log = with_equal_duplicates(log)
    with memory() as connection:
        consumers = [Consumer(log), Consumer(log)]
        for number, partitions, count, then in schedule:
            consumer = consumers[number]
            consumer.fetch(connection, partitions, count)
            if then == "wait" or not consumer.held:
                continue
            try:
                consumer.flush(connection, before_commit=then == "crash before commit")
            except (OffsetsMovedError, CrashError):
                consumer.believes = None
            if then == "crash after commit":
                consumer.believes = None
        last = Consumer(log)
        last.fetch(connection, [0, 1], 100)
        if last.held:
            last.flush(connection, before_commit=False)
        assert read_tables(connection) == plain_tables([*log[0], *log[1]])


def log_of(count: int, *, jobs: int = 7) -> list[Record]:
    """Return results with failures, duplicates and poison among them."""
    items: list[Record] = []
    for offset in range(count):
        value: Any = result(
            1 + offset % jobs,
            NOW + 13 * (offset // jobs),
            up=offset % 11 != 0,
            status=None if offset % 11 == 0 else 200 + offset % 3,
            response_time=None if offset % 11 == 0 else 0.001 * (1 + offset % 97),
            error="refused: \\ tab\t newline\n \N{SNOWMAN}" if offset % 11 == 0 else None,
        )
        if offset % 37 == 5:
            value = b"poison %d" % offset
        elif offset % 19 == 3:
            value = items[offset // 2].value
        items.append(record(offset, value))
    return items


async def tables(store: Store) -> Tables:
    return await store.read(read_tables)


def test_a_place_is_one_in_the_topic_of_its_id() -> None:
    assert Place(100, "one").start("one") == 100
    assert Place(100, "one").start("another") == 0
    # Offsets of an earlier version, and brokers that have no ids.
    assert Place(100, None).start("one") == Place(100, "one").start(None) == 100


async def test_batches_give_what_a_plain_computation_gives(store: Store) -> None:
    log = log_of(500)
    at: int | None = None
    for start in range(0, 500, 120):
        part = log[start : start + 120]
        await store.transaction(lambda c, part=part, at=at: write(c, part, {0: at}))  # type: ignore[misc]
        at = part[-1].offset + 1
    assert await tables(store) == plain_tables(log)


async def test_late_results_go_to_the_window_that_they_belong_to(store: Store) -> None:
    log = list(reversed(log_of(200)))
    log = [msgspec.structs.replace(item, offset=offset) for offset, item in enumerate(log)]
    log.append(record(200, result(1, NOW - 20 * 86400)))
    await store.transaction(lambda c: write(c, log[:100], {0: None}))
    await store.transaction(lambda c: write(c, log[100:], {0: 100}))
    assert await tables(store) == plain_tables(log)


async def test_a_result_that_waited_until_it_was_too_old_is_not_counted(store: Store) -> None:
    log = log_of(40)
    log[7] = record(7, result(1, NOW - KEEP_S - 1))
    await store.transaction(lambda c: write(c, log, {0: None}))
    found = await tables(store)
    reason, payload = found.rejected[0, 7]
    assert reason == "too-old"
    assert json.loads(payload)["scheduled_at"] == NOW - KEEP_S - 1
    assert found.results == plain_tables([*log[:7], *log[8:]]).results


async def test_a_batch_written_again_is_recognized(store: Store) -> None:
    log = log_of(60)
    await store.transaction(lambda c: write(c, log, {0: None}))
    again = await store.transaction(lambda c: write(c, log, {0: None}))
    assert again == Written(again=True)
    assert await tables(store) == plain_tables(log)


async def test_a_consumer_that_wakes_up_late_writes_nothing(store: Store) -> None:
    log = log_of(60)
    await store.transaction(lambda c: write(c, log[:40], {0: None}))
    for records, expected in ((log[:20], None), (log[20:60], 20), (log[41:60], 41)):
        with pytest.raises(OffsetsMovedError):
            await store.transaction(
                lambda c, records=records, expected=expected: write(c, records, {0: expected})  # type: ignore[misc]
            )
    assert await tables(store) == plain_tables(log[:40])


async def test_two_that_write_the_same_at_once_count_it_once(store: Store) -> None:
    log = log_of(300)

    async def race(records: list[Record], expected: int | None) -> int:
        tries = [store.transaction(lambda c: write(c, records, {0: expected})) for _ in range(3)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        assert all(isinstance(item, Written | OffsetsMovedError) for item in found)
        return sum(isinstance(item, Written) and not item.again for item in found)

    assert await race(log[:150], None) == 1
    assert await race(log[150:], 150) == 1
    assert await tables(store) == plain_tables(log)


async def test_two_with_different_partitions_and_the_same_results_do_not_deadlock(
    store: Store,
) -> None:
    log = [item for item in log_of(400) if not item.value.startswith(b"poison")]
    one = [msgspec.structs.replace(item, offset=offset) for offset, item in enumerate(log)]
    other = [
        msgspec.structs.replace(item, offset=offset, partition=1)
        for offset, item in enumerate(reversed(log))
    ]
    await asyncio.gather(
        store.transaction(lambda c: write(c, one, {0: None})),
        store.transaction(lambda c: write(c, other, {1: None})),
    )
    assert await tables(store) == plain_tables([*one, *other])


async def test_a_column_that_somebody_added_to_the_table_keeps_its_default(store: Store) -> None:
    await store.transaction(
        lambda c: c.execute(
            "ALTER TABLE availability_result ADD COLUMN team text NOT NULL DEFAULT 'web'"
        )
    )
    log = log_of(100)
    await store.transaction(lambda c: write(c, log, {0: None}))
    assert await tables(store) == plain_tables(log)
    teams = await store.read(lambda c: c.query("SELECT DISTINCT team FROM availability_result"))
    assert teams == [("web",)]


@pytest.mark.integration_test
async def test_a_role_that_owns_its_schema_and_nothing_else_suffices(
    postgres_server: Any, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    role = f"daemon_{name}"
    for statement in (
        f"CREATE ROLE {role} LOGIN",
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {name} TO {role}",
    ):
        postgres_server.execute(statement)
    postgres_server.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC", name)
    postgres_server.execute(f"CREATE SCHEMA mine AUTHORIZATION {role}", name)
    database = DatabaseSettings(url=postgres_server.url(name, role), schema="mine")

    async with opened(database) as store:
        log = log_of(100)
        await store.transaction(lambda c: write(c, log[:50], {0: None}))
        await store.transaction(lambda c: write(c, log[50:], {0: 50}))
        assert await tables(store) == plain_tables(log)
