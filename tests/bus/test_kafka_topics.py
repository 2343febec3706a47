"""Topics as others make, change and delete them, with a real Kafka and a second producer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import pytest
from confluent_kafka import Producer

from monitor.bus import Assignment
from tests.bus.kafka_steps import (
    alter_topic,
    create_topic,
    delete_before,
    delete_topic,
    expand_topic,
    expired,
    make,
    produce,
    take,
    throttled,
    values,
)
from tests.servers.kafka import Kafka
from tests.waiting import until

pytestmark = [
    pytest.mark.integration_test,
    pytest.mark.usefixtures("state"),
    # kafka-python leaves the sockets of attempts that failed to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


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


async def test_a_topic_with_a_lower_limit_takes_small_messages_in_order_and_long_ones_wait(
    kafka: Kafka, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "monitor.bus")
    create_topic(kafka.bootstrap, topic, max_message_bytes="3000")
    bus = make(kafka.bootstrap)
    await bus.start()
    for number in range(300):
        bus.publish(topic, value=f"{number:0500}".encode(), key="k", headers={})
    consumer = bus.consumer(topic, group=None)
    assert [int(record.value) for record in await take(consumer, 300)] == list(range(300))
    # A longer one waits.
    bus.publish(topic, value=b"0" * 4000, key="k", headers={})
    bus.publish(topic, value=b"1", key="k", headers={})
    said = f"topic {topic}: it takes no message of 4000 bytes; raise its max.message.bytes"
    await until(lambda: said in bus.state().summary)
    alter_topic(kafka.bootstrap, topic, max_message_bytes="5000")
    assert [record.value for record in await take(consumer, 2)] == [b"0" * 4000, b"1"]
    await until(lambda: bus.state().health == "ok")
    dropped = {metric.name: metric.samples for metric in bus.metrics()}["bus_dropped_total"]
    assert dropped == [({}, 0.0)]
    assert sum(said in line for line in caplog.messages) == 1
    assert caplog.messages[-1] == f"forwarding the topic {topic} to Kafka resumed"
    await consumer.close()
    await bus.close()
