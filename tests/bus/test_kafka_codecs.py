"""Messages as other producers compress them, with a real Kafka."""

from __future__ import annotations

import subprocess
import sys

import pytest
from kafka import codec

from monitor.bus.kafka_decoding import MOST_BYTES
from tests.bus.kafka_steps import (
    create_topic,
    delete_before,
    expired,
    make,
    produce,
    take,
    values,
)
from tests.servers.daemon import ROOT
from tests.servers.kafka import Kafka

pytestmark = [
    pytest.mark.integration_test,
    pytest.mark.usefixtures("state"),
    # kafka-python leaves the sockets of attempts that failed to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


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


def test_the_codecs_libraries_are_there() -> None:
    assert all((codec.has_snappy(), codec.has_lz4(), codec.has_zstd()))
    assert sys.modules["snappy"]
