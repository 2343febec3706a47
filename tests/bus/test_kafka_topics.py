"""Topics as others make, change and delete them, with a real Kafka and a second producer."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer
from kafka import codec

from monitor.bus import Assignment, Bus, BusSettings, KafkaSettings
from monitor.bus.extents import ConsumerGroup, UnknownTopicError
from monitor.bus.kafka_decoding import MOST_BYTES
from monitor.bus.look import TopicLook
from tests.bus.kafka_steps import (
    create_topic,
    delete_before,
    delete_topic,
    expand_topic,
    make,
    produce,
    take,
    throttled,
)
from tests.servers.kafka import Kafka
from tests.waiting import LIMIT_S, until

pytestmark = [
    pytest.mark.integration_test,
    pytest.mark.usefixtures("state"),
    # kafka-python leaves the sockets of attempts that failed to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


ROOT = Path(__file__).resolve().parents[2]


def values(numbers: range) -> list[bytes]:
    # Long enough to be worth compressing, which librdkafka decides.
    return [f"{number:0100}".encode() for number in numbers]


def expired(bus: Bus) -> dict[str, float]:
    (metric,) = (metric for metric in bus.metrics() if metric.name == "consumer_expired_total")
    return {labels["topic"]: count for labels, count in metric.samples}


@pytest.mark.parametrize("name", ["gzip", "snappy", "lz4", "zstd"])
async def test_messages_of_every_codec_are_read(kafka: Kafka, topic: str, name: str) -> None:
    create_topic(kafka.bootstrap, topic)
    produce(kafka.bootstrap, topic, values(range(500)), compression_type=name)
    bus = make(kafka.bootstrap)
    consumer = bus.consumer(topic, group=topic)
    assert [record.value for record in await take(consumer, 500)] == values(range(500))
    assert bus.state().health == "ok"
    await consumer.close()


@pytest.mark.parametrize("name", ["lz4", "zstd"])
async def test_our_own_messages_come_through_a_topic_that_compresses(
    kafka: Kafka, topic: str, name: str
) -> None:
    create_topic(kafka.bootstrap, topic, compression_type=name)
    bus = make(kafka.bootstrap)
    await bus.start()
    for value in values(range(200)):
        bus.publish(topic, value=value, key="k", headers={})
    consumer = bus.consumer(topic, group=None)
    assert [record.value for record in await take(consumer, 200)] == values(range(200))
    await consumer.close()
    await bus.close()


async def test_a_batch_that_cannot_be_decoded_holds_up_its_partition_alone(
    kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As on a machine without the library.
    monkeypatch.setattr(codec, "lz4", None)
    create_topic(kafka.bootstrap, topic, partitions=3)
    produce(kafka.bootstrap, topic, values(range(10)), partition=0)
    produce(kafka.bootstrap, topic, values(range(10, 20)), partition=1, compression_type="lz4")
    produce(kafka.bootstrap, topic, values(range(20, 30)), partition=2)
    bus = make(kafka.bootstrap)
    consumer = bus.consumer(topic, group=topic)
    records = await take(consumer, 20)
    produce(kafka.bootstrap, topic, values(range(30, 40)), partition=2)
    records += await take(consumer, 10)
    assert {record.partition for record in records} == {0, 2}
    summary = bus.state().summary
    assert bus.state().health == "degraded"
    for text in (f"topic {topic}, partition 1", "lz4", "python3-lz4", "python3dist(lz4)"):
        assert text in summary
    assert sum("cannot decode" in message for message in caplog.messages) == 1
    # With the library, it resumes by itself, and nothing is lost.
    monkeypatch.undo()
    records = await take(consumer, 10)
    assert [record.value for record in records] == values(range(10, 20))
    assert bus.state().health == "ok"
    await consumer.close()


@pytest.mark.parametrize("name", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_batch_that_grows_without_bounds_waits_alone_and_may_be_deleted(
    kafka: Kafka, topic: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    create_topic(kafka.bootstrap, topic, partitions=2, max_message_bytes="8000000")
    produce(kafka.bootstrap, topic, values(range(10)))
    bomb = bytes(MOST_BYTES)  # and its record's head
    produce(
        kafka.bootstrap,
        topic,
        [bomb],
        compression_type=name,
        message_max_bytes=100_000_000,
        queue_buffering_max_kbytes=200_000,
    )
    produce(kafka.bootstrap, topic, values(range(10, 20)))
    produce(kafka.bootstrap, topic, values(range(20, 30)), partition=1)
    bus = make(kafka.bootstrap)
    consumer = bus.consumer(topic, group=topic)
    records = await take(consumer, 20)
    assert sorted(record.value for record in records) == values(range(10)) + values(range(20, 30))

    async def waits() -> bool:
        assert await consumer.poll(timeout_s=0.1) == []
        return "larger than 64 MiB" in bus.state().summary

    while not await waits():
        pass
    assert f"topic {topic}, partition 0: cannot decode the batch at offset 10" in (
        bus.state().summary
    )
    # Once the user has decided that nobody needs it.
    delete_before(kafka.bootstrap, topic, 11)
    assert [record.value for record in await take(consumer, 10)] == values(range(10, 20))
    assert bus.state().health == "ok"
    assert expired(bus)[topic] == 1
    assert sum("cannot decode" in message for message in caplog.messages) == 1
    await consumer.close()


@pytest.mark.parametrize("name", ["gzip_decode", "zstd_decode"])
def test_a_few_kilobytes_that_become_gigabytes_take_little_memory(name: str) -> None:
    program = (
        "import resource, sys, zlib, zstandard\n"
        "from monitor.bus import kafka_client, kafka_decoding\n"
        "from kafka.record import default_records\n"
        "name, piece = sys.argv[1], bytes(1 << 20)\n"
        "packer = zlib.compressobj(1, wbits=31) if name == 'gzip_decode'"
        " else zstandard.ZstdCompressor().compressobj()\n"
        "bomb = b''.join(packer.compress(piece) for _ in range(1 << 10)) + packer.flush()\n"
        "assert len(bomb) < 1 << 23\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 28, 3 << 28))\n"
        "try:\n"
        "    getattr(default_records, name)(bomb)\n"
        "except kafka_decoding.BatchTooLargeError as error:\n"
        "    print(error.args[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.stdout.startswith("it is larger than 64 MiB when decompressed"), done.stderr


async def test_a_client_that_the_broker_throttles_loses_nothing(kafka: Kafka, topic: str) -> None:
    create_topic(kafka.bootstrap, topic)
    content = [f"{number:02000}".encode() for number in range(300)]
    begun = time.monotonic()
    # More than the broker lets through at once: it counts over ten seconds.
    with throttled(kafka.bootstrap, producer_byte_rate=30_000, consumer_byte_rate=30_000):
        bus = make(kafka.bootstrap)
        await bus.start()
        for value in content:
            bus.publish(topic, value=value, key="k", headers={})
        consumer = bus.consumer(topic, group=topic)
        # What was in doubt may come twice.
        found: dict[bytes, None] = {}
        async with asyncio.timeout(110):
            while len(found) < len(content):
                records = await consumer.poll(max_records=1000, timeout_s=0.2)
                found |= dict.fromkeys(record.value for record in records)
        assert time.monotonic() - begun > 5, "it was throttled"
        assert list(found) == content
        await until(lambda: bus.state().health == "ok")
        await consumer.close()
        await bus.close()


async def test_aborted_and_open_transactions_are_not_read(kafka: Kafka, topic: str) -> None:
    create_topic(kafka.bootstrap, topic)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(60)
    for number, commit in ((0, True), (1, False), (2, True)):
        producer.begin_transaction()
        producer.produce(topic, value=str(number).encode(), partition=0)
        assert producer.flush(60) == 0
        (producer.commit_transaction if commit else producer.abort_transaction)(60)
    producer.begin_transaction()
    producer.produce(topic, value=b"open", partition=0)
    assert producer.flush(60) == 0
    bus = make(kafka.bootstrap)
    consumer = bus.consumer(topic, group=topic)
    assert [record.value for record in await take(consumer, 2)] == [b"0", b"2"]
    producer.commit_transaction(60)
    assert [record.value for record in await take(consumer, 1)] == [b"open"]
    await until(lambda: bus.state().health == "ok")
    await consumer.close()
    # All of them, if asked for.
    other = make(kafka.bootstrap, isolation_level="read_uncommitted").consumer(topic, group=None)
    assert [record.value for record in await take(other, 4)] == [b"0", b"1", b"2", b"open"]
    await other.close()


async def test_messages_that_expired_unread_are_counted_and_said(
    kafka: Kafka, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    create_topic(kafka.bootstrap, topic)
    produce(kafka.bootstrap, topic, values(range(50)))
    delete_before(kafka.bootstrap, topic, 10)
    bus = make(kafka.bootstrap)
    stored = 0

    async def assigned(partitions: Sequence[int]) -> Mapping[int, int]:
        return dict.fromkeys(partitions, stored)

    # Who begins with the topic has lost nothing.
    consumer = bus.consumer(topic, group=topic, assignment=Assignment(assigned=assigned))
    assert [record.offset for record in await take(consumer, 40)] == list(range(10, 50))
    assert expired(bus) == {topic: 0}
    await consumer.close()
    # Who had read 20 has lost 5.
    stored = 20
    delete_before(kafka.bootstrap, topic, 25)
    consumer = bus.consumer(topic, group=topic, assignment=Assignment(assigned=assigned))
    assert [record.offset for record in await take(consumer, 25)] == list(range(25, 50))
    assert expired(bus) == {topic: 5}
    assert f"{topic}, partition 0: Kafka deleted 5 messages before they were read" in caplog.text
    assert await consumer.lag() == {0: 0}
    await consumer.close()


async def test_a_topic_that_is_created_again_is_read_from_its_beginning(
    kafka: Kafka, topic: str
) -> None:
    create_topic(kafka.bootstrap, topic)
    produce(kafka.bootstrap, topic, values(range(30)))
    bus = make(kafka.bootstrap)
    happened: list[str] = []
    ids: list[str | None] = []

    async def assigned(partitions: Sequence[int]) -> Mapping[int, int]:
        if partitions:
            happened.append("assigned")
            ids.append(consumer.topic_id())
        return dict.fromkeys(partitions, 0)

    async def revoked(partitions: Sequence[int]) -> None:
        if partitions:
            happened.append("revoked")

    callbacks = Assignment(assigned=assigned, revoked=revoked)
    consumer = bus.consumer(topic, group=topic, assignment=callbacks)
    look = bus.consumer(topic, group=None)
    for one in (consumer, look):
        assert [record.offset for record in await take(one, 30)] == list(range(30))
    delete_topic(kafka.bootstrap, topic)
    create_topic(kafka.bootstrap, topic)
    # Its 30 messages more than were read would continue the old ones.
    produce(kafka.bootstrap, topic, values(range(100, 160)))
    for one in (consumer, look):
        found: list[int] = []
        async with asyncio.timeout(60):
            while len(found) < 60:
                found += [int(r.value) for r in await one.poll(timeout_s=0.2)]
        # Messages from before the new id was noticed come again.
        assert found[-60:] == list(range(100, 160))
    # What was read of the old topic is finished before the new one begins.
    assert happened.index("revoked") == ids.count(ids[0])
    assert None not in ids
    assert len(set(ids)) == 2
    for one in (consumer, look):
        await one.close()


async def test_partitions_that_are_added_are_read(kafka: Kafka, topic: str) -> None:
    create_topic(kafka.bootstrap, topic)
    produce(kafka.bootstrap, topic, values(range(5)))
    bus = make(kafka.bootstrap)
    consumers = [bus.consumer(topic, group=topic), bus.consumer(topic, group=None)]
    for consumer in consumers:
        await take(consumer, 5)
        await consumer.commit({0: 5})
    expand_topic(kafka.bootstrap, topic, 3)
    await asyncio.to_thread(_produce_when_there, kafka.bootstrap, topic)
    for consumer in consumers:
        assert [record.value for record in await take(consumer, 5)] == values(range(5, 10))
        assert consumer.assignment() == {0, 1, 2}
        await consumer.close()


def _produce_when_there(server: str, topic: str) -> None:
    produce(
        server, topic, values(range(5, 10)), partition=2, topic_metadata_refresh_interval_ms=500
    )


async def test_a_topic_that_does_not_exist_stops_no_other(kafka: Kafka, topic: str) -> None:
    create_topic(kafka.bootstrap, topic)
    bus = make(kafka.bootstrap, create_topics=False)
    await bus.start()
    bus.publish("missing-" + topic, value=b"waits", key=None, headers={})
    await until(lambda: bus.state().health == "degraded")
    for value in values(range(100)):
        bus.publish(topic, value=value, key="k", headers={})
    consumer = bus.consumer(topic, group=None)
    assert [record.value for record in await take(consumer, 100)] == values(range(100))
    state = bus.state()
    assert state.health == "degraded"
    assert f"topic missing-{topic}: it does not exist, and create_topics is off" in state.summary
    # It resumes once somebody has created the topic.
    create_topic(kafka.bootstrap, "missing-" + topic)
    late = bus.consumer("missing-" + topic, group=None)
    assert [record.value for record in await take(late, 1)] == [b"waits"]
    await until(lambda: bus.state().health == "ok")
    for one in (consumer, late):
        await one.close()
    await bus.close()


async def test_a_topic_that_is_deleted_in_use_is_created_again(kafka: Kafka, topic: str) -> None:
    bus = make(kafka.bootstrap, partitions=1)
    await bus.start()
    consumer = bus.consumer(topic, group=topic)
    for value in values(range(20)):
        bus.publish(topic, value=value, key="k", headers={})
    await take(consumer, 20)
    delete_topic(kafka.bootstrap, topic)
    for value in values(range(20, 40)):
        bus.publish(topic, value=value, key="k", headers={})
    assert [record.value for record in await take(consumer, 20)] == values(range(20, 40))
    await until(lambda: bus.state().health == "ok")
    await consumer.close()
    await bus.close()


async def test_a_topic_with_a_lower_limit_takes_small_messages_in_order(
    kafka: Kafka, topic: str
) -> None:
    create_topic(kafka.bootstrap, topic, max_message_bytes="3000")
    bus = make(kafka.bootstrap)
    await bus.start()
    for number in range(300):
        bus.publish(topic, value=f"{number:0500}".encode(), key="k", headers={})
    consumer = bus.consumer(topic, group=None)
    assert [int(record.value) for record in await take(consumer, 300)] == list(range(300))
    dropped = {metric.name: metric.samples for metric in bus.metrics()}["bus_dropped_total"]
    assert dropped == [({}, 0.0)]
    await consumer.close()
    await bus.close()


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


def test_the_codecs_libraries_are_there() -> None:
    assert all((codec.has_snappy(), codec.has_lz4(), codec.has_zstd()))
    assert sys.modules["snappy"]
