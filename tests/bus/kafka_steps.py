"""What the tests of Kafka do to a broker: topics, and messages of another program."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

from confluent_kafka import Producer
from kafka import TopicPartition
from kafka.admin import (
    ConfigResource,
    ConfigResourceType,
    KafkaAdminClient,
    NewPartitions,
    NewTopic,
)
from kafka.protocol.admin import AlterClientQuotasRequest

from monitor.bus import Bus, BusSettings, Consumer, KafkaSettings, Record, create_bus

__all__ = [
    "admin",
    "alter_topic",
    "create_topic",
    "delete_before",
    "delete_topic",
    "expand_topic",
    "expired",
    "make",
    "produce",
    "take",
    "throttled",
    "values",
]


def make(server: str, **options: Any) -> Bus:
    """Return a bus whose spool is in the test's state directory."""
    return create_bus(BusSettings(), KafkaSettings(bootstrap_servers=[server], **options))


@contextlib.contextmanager
def admin(server: str) -> Iterator[KafkaAdminClient]:
    """Return a client of Kafka's own requests."""
    client = KafkaAdminClient(bootstrap_servers=server)
    try:
        yield client
    finally:
        client.close()


def create_topic(server: str, topic: str, *, partitions: int = 1, **config: str) -> None:
    """Create a topic; ``config`` has its settings, with _ for a dot."""
    configs = {key.replace("_", "."): value for key, value in config.items()}
    with admin(server) as client:
        new = NewTopic(topic, partitions, 1, topic_configs=configs)
        client.create_topics([new], wait_for_metadata=True)


def alter_topic(server: str, topic: str, **config: str) -> None:
    """Change settings of a topic; ``config`` as for create_topic."""
    changed = {key.replace("_", "."): value for key, value in config.items()}
    with admin(server) as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=changed)])


def delete_topic(server: str, topic: str) -> None:
    """Delete a topic, and wait until it is gone."""
    with admin(server) as client:
        client.delete_topics([topic])
        until = time.monotonic() + 60
        while topic in client.list_topics():
            assert time.monotonic() < until
            time.sleep(0.05)


def expand_topic(server: str, topic: str, partitions: int) -> None:
    """Give a topic more partitions."""
    with admin(server) as client:
        client.create_partitions({topic: NewPartitions(total_count=partitions)})


def delete_before(server: str, topic: str, offset: int, *, partition: int = 0) -> None:
    """Delete the messages before an offset, as retention does."""
    with admin(server) as client:
        client.delete_records({TopicPartition(topic, partition): offset})


@contextlib.contextmanager
def throttled(server: str, **rates: float) -> Iterator[None]:
    """Give our clients quotas, such as ``producer_byte_rate`` (bytes/s), in the block."""

    def alter(*, remove: bool) -> None:
        ops = [(key, value, remove) for key, value in rates.items()]
        request = AlterClientQuotasRequest(
            entries=[([("client-id", "recodex-monitor")], ops)], validate_only=False
        )

        async def send() -> Any:
            return await client._manager.send(request)

        with admin(server) as client:
            answer = client._manager.run(send)
            assert [entry.error_code for entry in answer.entries] == [0], answer

    alter(remove=False)
    try:
        yield
    finally:
        alter(remove=True)


def produce(
    server: str,
    topic: str,
    values: Iterable[bytes],
    *,
    partition: int = 0,
    headers: dict[str, str | bytes | None] | None = None,
    **config: Any,
) -> None:
    """Produce with another library; ``config`` is librdkafka's, with _ for a dot."""
    options = {key.replace("_", "."): value for key, value in config.items()}
    producer = Producer({"bootstrap.servers": server, "linger.ms": 50} | options)
    for value in values:
        producer.produce(topic, value=value, partition=partition, headers=headers)
    assert producer.flush(60) == 0


async def take(consumer: Consumer, count: int, *, limit_s: float = 60) -> list[Record]:
    """Poll until there are ``count`` records."""
    records: list[Record] = []
    async with asyncio.timeout(limit_s):
        while len(records) < count:
            records += await consumer.poll(max_records=1000, timeout_s=0.2)
    return records


def values(numbers: range) -> list[bytes]:
    # Long enough to be worth compressing, which librdkafka decides.
    return [f"{number:0100}".encode() for number in numbers]


def expired(bus: Bus) -> dict[str, float]:
    (metric,) = (metric for metric in bus.metrics() if metric.name == "consumer_expired_total")
    return {labels["topic"]: count for labels, count in metric.samples}
