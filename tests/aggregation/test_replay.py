"""Rejected messages that are tried again: counted exactly once, or kept with the reason."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from monitor.aggregation import replay as again
from monitor.aggregation.batch import Batch, parse_records
from monitor.aggregation.replay import Replayed, Which, rejected_messages, replay
from monitor.aggregation.settings import AggregationSettings
from monitor.aggregation.writer import prepare, write_batch
from monitor.bus import Record
from monitor.store import Connection, Store
from monitor.store.cursor import read_cursor
from tests.aggregation.plain import TOPIC, plain_tables, read_tables, record, result

NOW = 1_700_000_000.0
SETTINGS = AggregationSettings()
LATER = NOW + 3 * 86400


def write(connection: Connection, records: list[Record]) -> None:
    batch = Batch(parse_records(records, now=NOW, keep_s=SETTINGS.keep_results))
    write_batch(
        connection,
        prepare(batch, SETTINGS.granularities, connection.dialect, oldest=0),
        topic=TOPIC,
        topic_id=None,
        expected={0: None},
        now=NOW,
    )


def log_of(count: int) -> list[Record]:
    """Results two days ahead, which are rejected now and not later, and others."""
    items: list[Any] = [result(1 + n % 5, NOW + 2 * 86400 + n // 5 * 7) for n in range(count)]
    items[3:3] = [result(1, NOW), b"poison", items[0]]
    return [record(offset, item) for offset, item in enumerate(items)]


async def test_what_is_a_result_now_is_counted_once_even_if_several_try_at_once(
    store: Store,
) -> None:
    log = log_of(130)
    await store.transaction(lambda c: write(c, log))
    assert len((await store.read(read_tables)).results) == 1
    done = await asyncio.gather(*(replay(store, SETTINGS, Which(), now=LATER) for _ in range(3)))
    assert sum(each.counted for each in done) == 130
    assert sum(each.duplicates for each in done) == 1
    assert await replay(store, SETTINGS, Which(), now=LATER) == Replayed(rejected=1)
    found = await store.read(read_tables)
    assert found == plain_tables(log)


async def test_thousands_are_tried_in_several_calls_each_in_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(again._STEP, store.dialect, 20)
    log = log_of(130)
    await store.transaction(lambda c: write(c, log))
    found: list[Replayed] = []
    after: again.Place | None = None
    while not found or after is not None:
        done = await replay(store, SETTINGS, Which(), after=after, patience_s=0, now=LATER)
        found.append(done)
        after = None
        if done.cursor is not None:
            after = read_cursor(done.cursor, tuple[str, int, int])
    assert len(found) > 130 / 20
    assert sum(each.counted for each in found) == 130
    assert sum(each.duplicates for each in found) == 1
    assert sum(each.rejected for each in found) == 1
    assert await store.read(read_tables) == plain_tables(log)


async def test_a_message_of_another_type_stays_until_it_is_known(store: Store) -> None:
    other = {"ce_type": "org.recodex.monitor.\0.v3", "ce_specversion": "1.0", "n": "\\u0000"}
    data = json.dumps(result(1, NOW)).encode()
    log = [Record(TOPIC, 0, 0, None, other, data, 0.0), Record(TOPIC, 0, 1, None, {}, b"{", 0.0)]
    await store.transaction(lambda c: write(c, log))
    found = await store.read(lambda c: rejected_messages(c, Which(), before=None, limit=10))
    assert [(each.offset, each.reason.partition(":")[0]) for each in found] == [
        (1, "not-a-result"),
        (0, "unknown-type"),
    ]
    assert (found[1].headers, found[1].payload) == (other, data.decode())
    assert await replay(store, SETTINGS, Which(), now=NOW) == Replayed(rejected=2)
    # An earlier version kept no headers: what it was cannot be known.
    await store.transaction(lambda c: c.execute("UPDATE rejected_message SET headers = NULL"))
    chosen = Which(reason="unknown-type", topic=TOPIC, partition=0, offset=0)
    assert await replay(store, SETTINGS, chosen, now=NOW) == Replayed(rejected=1)
    assert (await store.read(read_tables)).results == {}


async def test_pages_list_every_message_once_the_last_rejected_first(store: Store) -> None:
    log = [record(offset, b"poison %d" % offset) for offset in range(25)]
    await store.transaction(lambda c: write(c, log))
    seen: list[int] = []
    before = None
    while True:
        page = await store.read(
            lambda c, b=before: rejected_messages(  # type: ignore[misc]
                c, Which(reason="not-a-result"), before=b, limit=10
            )
        )
        if not page:
            break
        seen += [each.offset for each in page]
        last = page[-1]
        before = (last.rejected_at, last.topic, last.partition, last.offset)
    assert seen == list(reversed(range(25)))
    assert (
        await store.read(lambda c: rejected_messages(c, Which(reason="not"), before=None, limit=10))
        == []
    )
