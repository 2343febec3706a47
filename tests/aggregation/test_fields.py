"""Other numbers of a result: counted, added up and shown as the response time is."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from monitor.aggregation.batch import Batch, parse_records
from monitor.aggregation.fields import numeric_fields
from monitor.aggregation.offsets import Place
from monitor.aggregation.settings import AggregationSettings, MeasuredField
from monitor.aggregation.writer import prepare, write_batch
from monitor.bus import Record
from monitor.errors import SettingError
from monitor.store import Connection, Store
from monitor.web.jobs.history import metric_windows
from tests.aggregation.plain import TOPIC, record, result

NOW = 1_700_000_000.0
HOUR = NOW // 3600 * 3600
FIELDS = [
    MeasuredField(field="phases.tls", functions=["min", "max", "avg", "sum", "p50", "p95"]),
    MeasuredField(field="certificate_expires_at", functions=["min"]),
]


def settings(*fields: MeasuredField) -> AggregationSettings:
    found = AggregationSettings(fields=list(fields))
    found.verify()
    return found


def write(connection: Connection, records: list[Record], expected: dict[int, int | None]) -> None:
    batch = Batch(parse_records(records, now=NOW, keep_s=1e9))
    write_batch(
        connection,
        prepare(
            batch,
            ["minute", "hour"],
            connection.dialect,
            oldest=0,
            measures=settings(*FIELDS).measures(),
        ),
        topic=TOPIC,
        topic_id=None,
        expected={key: None if at is None else Place(at, None) for key, at in expected.items()},
        now=NOW,
    )


def log_of(count: int, partition: int) -> tuple[list[Record], list[float]]:
    dice = random.Random(partition)
    values = [round(dice.expovariate(10), 6) for _ in range(count)]
    records: list[Record] = []
    for offset, value in enumerate(values):
        data = result(1, HOUR + 2 * offset + partition)
        data["phases"]["tls"] = value
        data["certificate_expires_at"] = None if offset % 2 else NOW + offset
        records.append(record(offset, data, partition))
    return records, values


def rank(values: list[float], fraction: float) -> float:
    return sorted(values)[math.ceil(fraction * len(values)) - 1]


async def test_two_consumers_and_repeats_add_up_to_what_a_plain_computation_gives(
    store: Store,
) -> None:
    (one, values), (other, more) = log_of(200, 0), log_of(150, 1)
    await store.transaction(lambda c: write(c, one[:120], {0: None}))
    await store.transaction(lambda c: write(c, other, {1: None}))
    # Written again, as after a crash whose outcome is unknown, and read again in another batch.
    await store.transaction(lambda c: write(c, other, {1: None}))
    await store.transaction(lambda c: write(c, one[120:], {0: 120}))
    functions = {each.field: each.functions for each in FIELDS}
    (found,) = await store.read(
        lambda c: metric_windows(
            c, 1, "hour", since=HOUR, until=HOUR + 1, limit=10, functions=functions
        )
    )
    everything = values + more
    tls = found.fields["phases.tls"]
    assert list(tls) == ["min", "max", "avg", "sum", "p50", "p95"]
    assert (tls["min"], tls["max"]) == (min(everything), max(everything))
    assert tls["sum"] == pytest.approx(math.fsum(everything), abs=1e-9)
    assert tls["avg"] == pytest.approx(math.fsum(everything) / len(everything), abs=1e-9)
    assert tls["p50"] == pytest.approx(rank(everything, 0.5), rel=0.02)
    assert tls["p95"] == pytest.approx(rank(everything, 0.95), rel=0.02)
    assert found.fields["certificate_expires_at"] == {"min": NOW}
    minutes = await store.read(
        lambda c: metric_windows(c, 1, "minute", since=HOUR, until=HOUR + 3600, limit=100)
    )
    counts: Any = await store.read(
        lambda c: c.query("SELECT fields FROM availability_metric WHERE granularity = 'minute'")
    )
    assert len(minutes) == len(counts)
    assert sum(json.loads(text)["phases.tls"]["count"] for (text,) in counts) == 350
    # Without the settings of the daemon that measured: all that the counters give.
    assert set(minutes[0].fields["phases.tls"]) >= {"min", "max", "avg", "sum", "p95"}


async def test_the_largest_numbers_that_are_taken_add_up_in_every_field(store: Store) -> None:
    functions = ["min", "max", "avg", "sum", "p50", "p99.9"]
    every = [MeasuredField(field=field, functions=functions) for field in numeric_fields()]
    extremes = [1.7e308, -1.7e308, 253402300799.0, 2**63 - 1, 2**31 - 1, 999, 1e9, -1.0, 5e-324]
    records: list[Record] = []
    for field in numeric_fields():
        for value in (each for each in extremes for _ in range(4)):
            data = result(1, HOUR + len(records) / 8)
            inside, _, name = field.rpartition(".")
            (data[inside] if inside else data)[name] = value
            records.append(record(len(records), data))
    for batch in (records[::2], records[1::2]):
        entries = parse_records(batch, now=NOW, keep_s=1e10)
        prepared = prepare(
            Batch(entries), ["day"], store.dialect, oldest=0, measures=settings(*every).measures()
        )
        number = batch[0].offset
        await store.transaction(
            lambda c, p=prepared, n=number: write_batch(  # type: ignore[misc]
                c, p, topic=f"topic-{n}", topic_id=None, expected={0: None}, now=NOW
            )
        )
    for (job,) in await store.read(lambda c: c.query("SELECT job_id FROM availability_metric")):
        windows = await store.read(
            lambda c, j=job: metric_windows(  # type: ignore[misc]
                c,
                j,
                "day",
                since=0,
                until=253402300799,
                limit=99,
                functions={each.field: functions for each in every},
            )
        )
        for window in windows:
            for values in window.fields.values():
                assert all(math.isfinite(value or 0) for value in values.values()), values


def test_every_number_of_a_result_can_be_measured_and_nothing_else() -> None:
    known = numeric_fields()
    assert {"duration", "phases.tls", "phases.resolve", "status", "missed"} <= set(known)
    assert not {"up", "url", "phases", "matched"} & set(known)
    for field in known:
        settings(MeasuredField(field=field, functions=["p99.9"]))
    with pytest.raises(SettingError, match=r"fields\[0\].field: .*did you mean phases.tls"):
        settings(MeasuredField(field="phase.tls", functions=["avg"]))
    with pytest.raises(SettingError, match=r"fields\[1\].field: duplicate field duration"):
        settings(*[MeasuredField(field="duration", functions=["avg"])] * 2)
