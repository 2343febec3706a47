"""Counting from a real Kafka whose topic is not the one that it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from monitor.aggregation.part import Aggregation
from monitor.aggregation.settings import AggregationSettings
from monitor.messages import RESULT_TYPE
from monitor.store import DatabaseSettings, open_store
from tests.aggregation.plain import read_tables, result
from tests.bus.kafka_steps import create_topic, delete_before, delete_topic, make, produce
from tests.servers.kafka import Kafka
from tests.waiting import until

pytestmark = [
    pytest.mark.integration_test,
    pytest.mark.usefixtures("state"),
    # kafka-python leaves the sockets of attempts that failed to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

NOW = 1_700_000_000.0


@contextlib.asynccontextmanager
async def counting(kafka: Kafka, topic: str, directory: Path) -> AsyncIterator[Aggregation]:
    bus = make(kafka.bootstrap)
    store = open_store(DatabaseSettings(file=str(directory / "monitor.db")))
    await bus.start()
    settings = AggregationSettings(topic=topic, group=topic, flush_interval=0.2)
    part = Aggregation(settings, bus=bus, store=store, clock=lambda: NOW)
    task = asyncio.create_task(part.run())
    try:
        yield part
    finally:
        await part.drain()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await part.close()
        await store.close()
        await bus.close()


async def counted(directory: Path) -> int:
    store = open_store(DatabaseSettings(file=str(directory / "monitor.db")))
    tables = await store.read(read_tables)
    await store.close()
    days = sum(row[0] for key, row in tables.metrics.items() if key[2] == "day")
    assert days == len(tables.results)
    return len(tables.results)


def results(job: int, count: int) -> list[bytes]:
    return [json.dumps(result(job, NOW + second)).encode() for second in range(count)]


async def test_a_topic_that_is_created_again_is_counted_whole_running_and_after_a_restart(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    create_topic(kafka.bootstrap, topic)
    produce(kafka.bootstrap, topic, results(1, 100))
    async with counting(kafka, topic, tmp_path) as part:
        await until(lambda: part.statistics.new == 100)
        # As many again, so that the old offset is the end of the new topic.
        delete_topic(kafka.bootstrap, topic)
        create_topic(kafka.bootstrap, topic)
        produce(kafka.bootstrap, topic, results(2, 100))
        await until(lambda: part.statistics.new == 200)
    delete_topic(kafka.bootstrap, topic)
    create_topic(kafka.bootstrap, topic)
    produce(kafka.bootstrap, topic, results(3, 150))
    async with counting(kafka, topic, tmp_path) as part:
        await until(lambda: part.statistics.new == 150)
        await until(lambda: part.state().health == "ok")
    # Offsets were stored for the topic that there is now.
    async with counting(kafka, topic, tmp_path) as part:
        produce(kafka.bootstrap, topic, results(4, 1))
        await until(lambda: part.statistics.new == 1)
        assert part.statistics.duplicates == 0
    assert await counted(tmp_path) == 351


async def test_results_that_expired_unread_and_aborted_ones_are_not_counted(
    kafka: Kafka, topic: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create_topic(kafka.bootstrap, topic)
    produce(kafka.bootstrap, topic, results(1, 5))
    async with counting(kafka, topic, tmp_path) as part:
        await until(lambda: part.statistics.new == 5)
    produce(kafka.bootstrap, topic, results(2, 45))
    delete_before(kafka.bootstrap, topic, 15)
    async with counting(kafka, topic, tmp_path) as part:
        await until(lambda: part.statistics.new == 35)
        await until(lambda: list(part.statistics.lag.values()) == [0])
    assert "Kafka deleted 10 messages before they were read" in caplog.text
    assert await counted(tmp_path) == 40


async def test_a_structured_cloudevent_counts_as_a_binary_one(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    create_topic(kafka.bootstrap, topic)
    event = {"specversion": "1.0", "id": "1", "source": "/other", "type": RESULT_TYPE}
    values = [json.dumps(event | {"data": result(1, NOW)}).encode()]
    produce(
        kafka.bootstrap, topic, values, headers={"content-type": "application/cloudevents+json"}
    )
    async with counting(kafka, topic, tmp_path) as part:
        await until(lambda: part.statistics.new == 1)
    assert await counted(tmp_path) == 1
