"""A look at the topics and consumers of a real Kafka."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.bus import BusSettings, KafkaSettings
from monitor.bus.extents import ConsumerGroup, UnknownTopicError
from monitor.bus.look import TopicLook
from tests.bus.kafka_steps import (
    create_topic,
    delete_before,
    delete_topic,
    make,
    produce,
    take,
    values,
)
from tests.servers.daemon import ROOT
from tests.servers.kafka import Kafka
from tests.waiting import LIMIT_S

pytestmark = [
    pytest.mark.integration_test,
    pytest.mark.usefixtures("state"),
    # kafka-python leaves the sockets of attempts that failed to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


async def test_a_look_at_a_topic_shows_its_messages_and_disturbs_nobody(
    kafka: Kafka, topic: str
) -> None:
    create_topic(kafka.bootstrap, topic, partitions=2)
    for partition in (0, 1):
        produce(kafka.bootstrap, topic, values(range(30)), partition=partition)
    delete_before(kafka.bootstrap, topic, 10, partition=1)
    look = TopicLook(BusSettings(), KafkaSettings(bootstrap_servers=[kafka.bootstrap]))
    (found,) = [one for one in await look.topics() if one.name == topic]
    extents = [(one.partition, one.first_offset, one.next_offset) for one in found.partitions]
    assert extents == [(0, 0, 30), (1, 10, 30)]
    page = await look.messages(topic, partition=1, offset=0, limit=5)
    assert [record.offset for record in page.records] == list(range(10, 15))
    assert page.more == (1, 15)
    page = await look.messages(topic, partition=1, offset=15, limit=100)
    assert [record.offset for record in page.records] == list(range(15, 30))
    assert page.more is None
    newest = await look.messages(topic, partition=None, offset=None, limit=4)
    assert len(newest.records) == 4
    assert {record.offset for record in newest.records} <= set(range(26, 30))
    for name, partition in (("nope", 0), (topic, 7)):
        with pytest.raises(UnknownTopicError):
            await look.messages(name, partition=partition, offset=None, limit=1)


async def test_a_look_at_consumers_shows_how_much_is_left_and_whether_anybody_reads(
    kafka: Kafka, topic: str
) -> None:
    create_topic(kafka.bootstrap, topic, partitions=2)
    for partition in (0, 1):
        produce(kafka.bootstrap, topic, values(range(30)), partition=partition)
    look = TopicLook(BusSettings(), KafkaSettings(bootstrap_servers=[kafka.bootstrap]))

    async def ours() -> list[ConsumerGroup]:
        return [each for each in await look.consumers() if each.topic == topic]

    assert await ours() == []
    bus = make(kafka.bootstrap)
    consumer = bus.consumer(topic, group=f"group-{topic}")
    await take(consumer, 60)
    await consumer.commit({0: 30, 1: 12})
    (found,) = await ours()
    assert (found.group, found.active, found.lag) == (f"group-{topic}", True, 18)
    assert [(one.partition, one.next_offset, one.lag) for one in found.partitions] == [
        (0, 30, 0),
        (1, 12, 18),
    ]
    await consumer.close()
    async with asyncio.timeout(LIMIT_S):
        while [each.active for each in await ours()] != [False]:
            pass
    # What was deleted cannot be read any more.
    delete_before(kafka.bootstrap, topic, 25, partition=1)
    assert [each.lag for each in await ours()] == [5]
    delete_topic(kafka.bootstrap, topic)
    assert await ours() == []


def test_the_command_shows_the_other_partitions_and_fails_with_the_package(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    create_topic(kafka.bootstrap, topic, partitions=2)
    produce(kafka.bootstrap, topic, values(range(10)), partition=0)
    produce(kafka.bootstrap, topic, values(range(10)), partition=1, compression_type="zstd")
    (tmp_path / "zstandard.py").write_text("raise ImportError('as if it were missing')")
    (tmp_path / "config.yml").write_text(f"kafka: {{bootstrap_servers: ['{kafka.bootstrap}']}}")
    command = [sys.executable, "main.py", "topic", topic, "-c", str(tmp_path / "config.yml")]
    lacking = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)}
    for environment, status, lines in ((lacking, 75, 10), ({"PATH": "/usr/bin:/bin"}, 0, 20)):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == status, done.stderr
        assert len(done.stdout.splitlines()) == lines
        assert ("python3-zstandard" in done.stderr) is (status == 75)
        # Local time, with its offset.
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d 0:0 ", done.stdout)
