"""The bus with a real Kafka: nothing lost, in order, whatever happens to the broker."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from monitor.bus import Assignment, Bus, BusSettings, Consumer, KafkaSettings, Record, create_bus
from monitor.bus.kafka_direct import KafkaTopic
from monitor.bus.spool_file import Outgoing, SpoolFile
from monitor.errors import UnavailableError
from monitor.messages import cloud_event
from tests.servers.cut import CutProxy
from tests.servers.kafka import Kafka
from tests.waiting import until

pytestmark = [
    pytest.mark.integration_test,
    pytest.mark.usefixtures("state"),
    # kafka-python leaves the sockets of attempts that failed to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def make(server: str, **options: Any) -> Bus:
    return create_bus(BusSettings(), KafkaSettings(bootstrap_servers=[server], **options))


def put(bus: Bus, topic: str, numbers: range) -> None:
    for number in numbers:
        bus.publish(
            topic, value=str(number).encode(), key=str(number % 7), headers={"ce_id": str(number)}
        )


async def take(consumer: Consumer, count: int, *, limit_s: float = 60) -> list[Record]:
    records: list[Record] = []
    async with asyncio.timeout(limit_s):
        while len(records) < count:
            records += await consumer.poll(max_records=1000)
    return records


def assert_in_order_and_whole(records: Sequence[Record], numbers: range) -> None:
    by_key: dict[str | None, list[int]] = defaultdict(list)
    for record in records:
        by_key[record.key].append(int(record.value))
    for key, found in by_key.items():
        assert found == [number for number in numbers if str(number % 7) == key]
    assert sum(map(len, by_key.values())) == len(numbers)


def spooled(bus: Bus) -> float:
    (metric,) = (metric for metric in bus.metrics() if metric.name == "bus_spooled_messages")
    return metric.samples[0][1]


async def test_what_is_published_comes_through_with_keys_headers_and_time(
    kafka: Kafka, topic: str
) -> None:
    bus = make(kafka.bootstrap)
    await bus.start()
    put(bus, topic, range(5000))
    consumer = bus.consumer(topic, group=None)
    records = await take(consumer, 5000)
    assert_in_order_and_whole(records, range(5000))
    assert {record.partition for record in records} == {0, 1, 2}
    assert records[0].headers == {"ce_id": records[0].value.decode()}
    assert records[0].timestamp > 1.7e9
    # acknowledged, so trimmed
    await until(lambda: spooled(bus) == 0)
    assert bus.state().health == "ok"
    await consumer.close()
    await bus.close()


async def test_a_clock_that_is_ahead_holds_up_nothing(
    kafka: Kafka, topic: str, state: Path
) -> None:
    # Kafka refuses times that are more than an hour ahead of its own, and keeps them in ms.
    now = int(time.time()) + 0.25
    times = [now + (7200 if 100 <= number < 150 else 0) for number in range(300)]
    spool = SpoolFile(state / "spool.db", max_bytes=1 << 26)
    spool.append(
        [
            Outgoing(
                topic,
                str(number % 7),
                json.dumps(cloud_event(type="t", source="/s", id=str(number), time=at)).encode(),
                str(number).encode(),
                at,
            )
            for number, at in enumerate(times)
        ]
    )
    spool.close()

    bus = make(kafka.bootstrap)
    await bus.start()
    consumer = bus.consumer(topic, group=None)
    # What was sent with the refused ones may come again, as the same messages.
    first: dict[int, Record] = {}
    async with asyncio.timeout(60):
        while len(first) < 300:
            for record in await consumer.poll(max_records=1000):
                first.setdefault(int(record.value), record)
    assert_in_order_and_whole(list(first.values()), range(300))
    told = {number: record.timestamp for number, record in first.items()}
    assert told == dict(enumerate(times))
    await until(lambda: bus.state().health == "ok")
    # What is published from then on goes, too.
    put(bus, topic, range(300, 310))
    wanted = set(range(300, 310))
    async with asyncio.timeout(60):
        while wanted:
            wanted -= {int(r.value) for r in await consumer.poll(max_records=1000)}
    await consumer.close()
    await bus.close()


async def test_a_group_goes_on_where_the_store_says(kafka: Kafka, topic: str) -> None:
    bus = make(kafka.bootstrap, partitions=1)
    await bus.start()
    put(bus, topic, range(100))
    first = bus.consumer(topic, group="g")
    records = await take(first, 100)
    await first.commit({0: records[49].offset + 1})
    assert await first.lag() == {0: 0}
    await first.close()

    second = bus.consumer(topic, group="g")
    assert [int(record.value) for record in await take(second, 50)] == list(range(50, 100))
    await second.close()

    async def assigned(partitions: Sequence[int]) -> Mapping[int, int]:
        return dict.fromkeys(partitions, 90)

    third = bus.consumer(topic, group="g", assignment=Assignment(assigned=assigned))
    assert [int(record.value) for record in await take(third, 10)] == list(range(90, 100))
    await third.seek(0, 95)
    assert [int(record.value) for record in await take(third, 5)] == list(range(95, 100))
    # Messages before it come first, as far as there are any.
    await third.seek(0, 95, again=10)
    assert [int(record.value) for record in await take(third, 15)] == list(range(85, 100))
    await third.seek(0, 95, again=1000)
    assert [int(record.value) for record in await take(third, 100)] == list(range(100))
    await third.close()
    await bus.close()


async def test_partitions_move_between_consumers_after_what_is_held_is_finished(
    kafka: Kafka, topic: str
) -> None:
    bus = make(kafka.bootstrap, partitions=2)
    await bus.start()
    happened: list[tuple[str, tuple[int, ...]]] = []

    def member(name: str) -> Consumer:
        async def assigned(partitions: Sequence[int]) -> Mapping[int, int]:
            happened.append((f"{name} gets", tuple(partitions)))
            return {}

        async def revoked(partitions: Sequence[int]) -> None:
            happened.append((f"{name} finishes", tuple(partitions)))

        callbacks = Assignment(assigned=assigned, revoked=revoked)
        return bus.consumer(topic, group="move", assignment=callbacks)

    async def poll(consumer: Consumer) -> None:
        while True:
            await consumer.poll(timeout_s=0.2)

    one, two = member("one"), member("two")
    tasks = [asyncio.create_task(poll(one))]
    await until(lambda: one.assignment() == {0, 1})
    tasks.append(asyncio.create_task(poll(two)))
    await until(lambda: len(one.assignment()) == len(two.assignment()) == 1)
    assert happened[:2] == [("one gets", (0, 1)), ("one finishes", (0, 1))]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await one.close()
    await two.close()
    await bus.close()


@pytest.fixture(scope="module")
def proxied(make_kafka: Callable[..., Kafka]) -> Iterator[tuple[Kafka, CutProxy]]:
    proxy = CutProxy()
    broker = make_kafka(advertised=proxy.port)
    proxy.target = broker.port
    yield broker, proxy
    proxy.close()


async def test_a_cut_network_costs_neither_messages_nor_order(
    proxied: tuple[Kafka, CutProxy], topic: str
) -> None:
    broker, proxy = proxied

    bus = make(broker.bootstrap)
    await bus.start()
    consumer = bus.consumer(topic, group=None)
    put(bus, topic, range(1000))
    records = await take(consumer, 1000)
    for start in (1000, 3000, 5000):
        proxy.cut()
        put(bus, topic, range(start, start + 1000))
        assert await bus.committed()
        proxy.mend()
        put(bus, topic, range(start + 1000, start + 2000))
        records += await take(consumer, 2000)
    assert_in_order_and_whole(records, range(7000))
    await until(lambda: bus.state().health == "ok")
    await consumer.close()
    await bus.close()


async def test_a_broker_that_hangs_or_is_killed_holds_up_nobody_and_loses_nothing(
    proxied: tuple[Kafka, CutProxy], topic: str
) -> None:
    broker, _ = proxied

    bus = make(broker.bootstrap)
    await bus.start()
    put(bus, topic, range(500))
    await until(lambda: spooled(bus) == 0)
    broker.pause()
    put(bus, topic, range(500, 1000))
    # publishing continues as if nothing had happened
    assert await bus.committed()
    await until(lambda: bus.state().health == "degraded")
    broker.resume()
    broker.kill()
    put(bus, topic, range(1000, 1500))
    assert await bus.committed()
    broker.start()
    consumer = bus.consumer(topic, group=None)
    assert_in_order_and_whole(await take(consumer, 1500), range(1500))
    await consumer.close()
    await bus.close()


async def test_what_a_broker_that_hangs_does_not_acknowledge_is_given_up(
    proxied: tuple[Kafka, CutProxy], topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, _ = proxied
    shared = KafkaTopic(KafkaSettings(bootstrap_servers=[broker.bootstrap]), topic, configs={})
    before = set(threading.enumerate())
    assert await shared.send([("k", b"1")]) == 0
    new = set(threading.enumerate()) - before
    sending = {each for each in new if not each.name.startswith("kafka-send-")}
    assert sending
    monkeypatch.setattr("monitor.bus.kafka_direct._ACKNOWLEDGED_S", 0.5)
    broker.pause()
    try:
        with pytest.raises(UnavailableError):
            await shared.send([("k", b"2")])
        # Nothing keeps sending it.
        await until(lambda: not any(each.is_alive() for each in sending))
    finally:
        broker.resume()
    monkeypatch.undo()
    assert await shared.send([("k", b"3")]) == 0
    await shared.close()


async def test_what_waited_while_kafka_and_daemon_were_away_follows_in_order(
    proxied: tuple[Kafka, CutProxy], topic: str
) -> None:
    broker, proxy = proxied

    proxy.cut()
    bus = make(broker.bootstrap)
    await bus.start()
    put(bus, topic, range(700))
    assert await bus.committed()
    await bus.close()
    bus = make(broker.bootstrap)
    await bus.start()
    put(bus, topic, range(700, 1400))
    await until(lambda: bus.state().health == "degraded")
    proxy.mend()
    consumer = bus.consumer(topic, group=None)
    assert_in_order_and_whole(await take(consumer, 1400), range(1400))
    await consumer.close()
    await bus.close()


async def test_a_missing_topic_that_is_not_to_be_created_is_named(
    kafka: Kafka, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make(kafka.bootstrap, create_topics=False)
    await bus.start()
    put(bus, topic, range(3))
    await until(lambda: bus.state().health == "degraded")
    assert topic in bus.state().summary
    await bus.close()


async def test_a_message_that_kafka_never_takes_is_dropped_and_counted(
    kafka: Kafka, topic: str
) -> None:
    bus = make(kafka.bootstrap)
    await bus.start()
    put(bus, topic, range(1))
    bus.publish(topic, value=b"x" * 3_000_000, key="0", headers={})
    put(bus, topic, range(1, 2))
    consumer = bus.consumer(topic, group=None)
    records = await take(consumer, 2)
    assert sorted(int(record.value) for record in records) == [0, 1]

    def dropped() -> object:
        return {metric.name: metric.samples for metric in bus.metrics()}["bus_dropped_total"]

    # It is counted once those behind it are acknowledged, too.
    await until(lambda: dropped() == [({}, 1.0)])
    await consumer.close()
    await bus.close()


def secured(directory: Path) -> tuple[dict[str, str], str]:
    """Return a broker's properties for SASL_SSL, and its authority's file."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (directory / "broker.pem").write_bytes(pem + chain)
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    users = 'username="admin" password="a" user_admin="a" user_monitor="s3cret-word";'
    return {
        "listeners": "SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": "SASL_SSL://127.0.0.1:{port}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "SASL_SSL",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{login} {users}",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(directory / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(directory / "ca.pem"),
    }, str(directory / "ca.pem")


async def test_tls_and_sasl_with_the_password_from_a_file(
    make_kafka: Callable[..., Kafka],
    tmp_path: Path,
    topic: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    properties, ca_file = secured(tmp_path)
    broker = make_kafka(properties=properties)
    password = tmp_path / "password"
    options = {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": ca_file,
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "monitor",
        "sasl_plain_password_file": str(password),
    }

    password.write_text("s3cret-word\n")
    bus = make(broker.bootstrap, **options)
    await bus.start()
    put(bus, topic, range(100))
    consumer = bus.consumer(topic, group="g")
    assert_in_order_and_whole(await take(consumer, 100), range(100))
    await consumer.close()
    await bus.close()

    password.write_text("wrong-s3cret\n")
    bus = make(broker.bootstrap, **options)
    await bus.start()
    put(bus, topic, range(100, 101))
    await until(lambda: bus.state().health == "degraded")
    shown = bus.state().summary + caplog.text
    assert "s3cret" not in shown
    assert "the credentials may be wrong" in shown
    await bus.close()
    broker.kill()
