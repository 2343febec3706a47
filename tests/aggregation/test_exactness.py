"""Real consumers, Kafka and PostgreSQL under random failures: every result counted once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import random
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer

from monitor.bus import BusSettings, Record
from monitor.bus.spool import SpoolBus
from monitor.store import DatabaseSettings
from tests.aggregation.plain import TOPIC, Tables, plain_tables, read_tables
from tests.aggregation.producers import PARTITIONS, Producers, whole_topic
from tests.bus.kafka_steps import create_topic
from tests.servers.cut import CutProxy
from tests.servers.daemon import DaemonProcess, StartDaemon
from tests.servers.kafka import Kafka
from tests.servers.postgres import PostgresServer, own_server
from tests.store.opened import opened
from tests.store.test_foreign_settings import SETTINGS
from tests.waiting import wait_for

pytestmark = [pytest.mark.integration_test, pytest.mark.timeout(300)]

# How long failures continue, in s.
SEED = int(os.environ.get("RECODEX_TEST_SEED", "20210209"))
CHAOS_S = float(os.environ.get("RECODEX_TEST_CHAOS_S", "20"))


# Every result has this one, so that each window must have counted it as often as its checks.
FIELDS = [{"field": "phases.processing", "functions": ["avg", "p95"]}]

Produce = Callable[[str, int], "Producers"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with own_server(shared_buffers="64MB") as server:
        yield server


@pytest.fixture
def produce() -> Iterator[Produce]:
    """Return a function that starts producers; they are stopped after the test in any case."""
    started: list[Producers] = []

    def start(bootstrap: str, seed: int) -> Producers:
        producers = Producers(bootstrap, seed)
        started.append(producers)
        producers.start()
        return producers

    yield start
    for producers in started:
        producers.stop()


@pytest.fixture
def proxy(make_kafka: Callable[..., Kafka]) -> Iterator[CutProxy]:
    """A way to a Kafka of its own that can be cut."""
    proxy = CutProxy()
    proxy.target = make_kafka(advertised=proxy.port).port
    yield proxy
    proxy.close()


async def tables(database: DatabaseSettings) -> Tables:
    async with opened(database) as store:
        measured = await store.read(
            lambda c: c.query("SELECT checks, fields FROM availability_metric")
        )
        for checks, fields in measured:
            found = json.loads(fields)["phases.processing"]
            assert found["count"] == sum(found["buckets"].values()) == checks
        return await store.read(read_tables)


async def configure(url: str) -> None:
    async with opened(DatabaseSettings(url=url)):
        pass


class Fleet:
    """Consumers that come and go."""

    def __init__(self, start: StartDaemon, directory: Path, config: dict[str, Any]) -> None:
        self._start = start
        self._directory = directory
        self._config = config
        self._count = 0
        self.running: list[DaemonProcess] = []

    def add(self) -> DaemonProcess:
        self._count += 1
        folder = self._directory / f"consumer-{self._count}"
        daemon = self._start(
            self._config,
            directory=folder,
            arguments=("start-consumer", str(folder / "config.yml")),
            debug=False,
        )
        self.running.append(daemon)
        return daemon

    def kill(self, daemon: DaemonProcess) -> None:
        self.running.remove(daemon)
        daemon.process.kill()
        daemon.process.wait(60)


def consumer_config(url: str, bootstrap: str) -> dict[str, Any]:
    return {
        "kafka": {"bootstrap_servers": [bootstrap], "partitions": PARTITIONS},
        "database": {"url": url, "connect_timeout": 2},
        "aggregation": {"flush_interval": 0.3, "flush_messages": 200, "fields": FIELDS},
    }


def progress(url: str, records: list[Record]) -> Callable[[], bool]:
    """Return a condition: everything has been consumed."""
    wanted = {item.partition: item.offset + 1 for item in records}

    def reached() -> bool:
        with contextlib.suppress(Exception):
            return stored(url) == wanted
        return False

    return reached


def stored(url: str) -> dict[int, int]:
    import psycopg2

    # Whatever the database sets.
    names = ("statement", "lock", "idle_session", "idle_in_transaction_session")
    options = " ".join(f"-c {name}_timeout=0" for name in names)
    with (
        contextlib.closing(psycopg2.connect(url, options=options)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT partition, next_offset FROM website_availability.consumed_offset")
        return dict(cursor.fetchall())


async def test_every_result_is_counted_once_whatever_dies_when(
    proxy: CutProxy,
    postgres: PostgresServer,
    produce: Produce,
    start_daemon: StartDaemon,
    tmp_path: Path,
) -> None:
    url = postgres.url(postgres.create_database())
    await configure(url)
    fleet = Fleet(start_daemon, tmp_path, consumer_config(url, f"127.0.0.1:{proxy.port}"))
    frozen = fleet.add()
    frozen.wait_log("assigned partitions", limit_s=60)  # it has made the topic, too
    producers = produce(f"127.0.0.1:{proxy.port}", SEED)
    wait_for(lambda: sum(stored(url).values()) > 100, "the first results", limit_s=60)

    # One consumer freezes with results in its memory, and wakes up when all is over.
    frozen.process.send_signal(signal.SIGSTOP)
    fleet.running.remove(frozen)
    dice = random.Random(SEED)
    fleet.add()
    fleet.add()
    until = time.monotonic() + CHAOS_S
    while time.monotonic() < until:
        await asyncio.sleep(dice.uniform(0.2, 2.0))  # the schedule
        act = dice.choice(["kill", "kill", "kill", "term", "database", "cut", "more"])
        if act == "kill" and fleet.running:
            fleet.kill(dice.choice(fleet.running))
        elif act == "term" and fleet.running:
            leaving = dice.choice(fleet.running)
            fleet.running.remove(leaving)
            assert leaving.wait_ready().stop() == 0
        elif act == "database":
            postgres.crash()
            await asyncio.sleep(dice.uniform(0, 2))
            postgres.start()
        elif act == "cut":
            proxy.cut()
            await asyncio.sleep(dice.uniform(0, 3))
            proxy.mend()
        while len(fleet.running) < (3 if act == "more" else 2):
            fleet.add()
    producers.stop()
    records = whole_topic(f"127.0.0.1:{proxy.port}")
    assert len(records) >= producers.sent > 1000

    wait_for(progress(url, records), "all to be consumed", limit_s=120)
    expected = plain_tables(records)
    assert await tables(DatabaseSettings(url=url)) == expected
    frozen.process.send_signal(signal.SIGCONT)
    frozen.wait_log("revoked partitions", limit_s=60)
    assert frozen.stop() == 0
    for daemon in fleet.running:
        assert daemon.wait_ready().stop() == 0
    assert await tables(DatabaseSettings(url=url)) == expected


class Filled(NamedTuple):
    bootstrap: str
    topic: str
    records: list[Record]


@pytest.fixture(scope="module")
def filled(kafka: Kafka) -> Callable[[str], Filled]:
    """Return a function that gives a topic that another library filled with a codec."""

    @functools.cache
    def fill(codec: str) -> Filled:
        topic = f"{codec}-{uuid.uuid4().hex[:8]}"
        create_topic(kafka.bootstrap, topic, partitions=PARTITIONS)
        messages = Producers("", SEED)
        recent: list[tuple[bytes, bytes]] = []
        base = time.time() // 86400 * 86400 - 2 * 86400
        # Some batches for each write of a consumer.
        options = {"linger.ms": 5, "batch.num.messages": 100, "compression.type": codec}
        producer = Producer({"bootstrap.servers": kafka.bootstrap, **options})
        for _ in range(3000):
            key, value = messages.message(base, recent)
            producer.produce(topic, key=key, value=value)
            messages.sent += 1
        assert producer.flush(60) == 0
        return Filled(kafka.bootstrap, topic, whole_topic(kafka.bootstrap, topic))

    return fill


# What an administrator may set for all sessions of a database, each by itself, and together.
FOREIGN = [
    *({name: value} for name, value in SETTINGS.items()),
    {"default_transaction_isolation": "'repeatable read'"},
    {"default_transaction_deferrable": "on"},
    {"array_nulls": "off"},
    {"transform_null_equals": "on"},
    {"backslash_quote": "off"},
    {"row_security": "off"},
    {"work_mem": "'64kB'", "plan_cache_mode": "force_generic_plan"},
    {"lc_numeric": "'C'", "lc_monetary": "'C'", "lc_messages": "'C'"},
    SETTINGS,
]
CODECS = ["gzip", "snappy", "lz4", "zstd"]


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param((each, "none"), id=" ".join(each)) for each in FOREIGN[:-1]),
        pytest.param((FOREIGN[-1], "none"), id="all settings"),
        *(pytest.param(({}, codec), id=codec) for codec in CODECS),
    ],
)
async def test_every_result_is_counted_once_whatever_the_database_sets_or_the_producer_packs(
    postgres: PostgresServer,
    filled: Callable[[str], Filled],
    start_daemon: StartDaemon,
    tmp_path: Path,
    case: tuple[dict[str, str], str],
) -> None:
    settings, codec = case
    name = postgres.create_database()
    for setting, value in settings.items():
        postgres.execute(f"ALTER DATABASE {name} SET {setting} = {value}")
    url = postgres.url(name)
    await configure(url)
    bootstrap, topic, records = filled(codec)
    config = consumer_config(url, bootstrap)
    fleet = Fleet(start_daemon, tmp_path, config)
    # The place is in the database. A group has to wait for a member that was killed, another not.
    config["aggregation"] |= {"topic": topic, "group": f"{name}-killed"}
    killed = fleet.add()
    wait_for(lambda: sum(stored(url).values()) > 0, "the first results", limit_s=60)
    fleet.kill(killed)
    config["aggregation"] |= {"group": f"{name}-second"}
    second = fleet.add()
    wait_for(progress(url, records), "all to be consumed", limit_s=120)
    assert await tables(DatabaseSettings(url=url)) == plain_tables(records)
    assert second.stop() == 0
    for daemon in (killed, second):
        assert "Traceback" not in daemon.log


async def test_consumption_pauses_while_the_database_is_away_and_loses_no_place_in_the_group(
    kafka: Kafka,
    postgres: PostgresServer,
    produce: Produce,
    start_daemon: StartDaemon,
    tmp_path: Path,
) -> None:
    url = postgres.url(postgres.create_database())
    await configure(url)
    config = consumer_config(url, kafka.bootstrap)
    config["aggregation"] |= {"topic": TOPIC, "group": f"pauses-{os.getpid()}"}
    daemon = Fleet(start_daemon, tmp_path, config).add()
    daemon.wait_log("assigned partitions", limit_s=60)
    producers = produce(kafka.bootstrap, 1)
    try:
        wait_for(lambda: sum(stored(url).values()) > 50, "the first results")
        assigned = daemon.log.count("assigned partitions")
        postgres.crash()
        daemon.wait_log("; trying again")
        wait_for(
            lambda: any("consumption paused" in line for line in daemon.notices("STATUS")),
            "STATUS= to say it",
        )
        reached = producers.sent
        wait_for(lambda: producers.sent > reached + 500, "more to wait than a batch holds")
        postgres.start()
        daemon.wait_log(": available again")
    finally:
        producers.stop()
    records = whole_topic(kafka.bootstrap)
    wait_for(progress(url, records), "all to be consumed", limit_s=60)
    assert daemon.log.count("assigned partitions") == assigned
    assert await tables(DatabaseSettings(url=url)) == plain_tables(records)
    assert daemon.stop() == 0


async def test_missing_tables_are_said_with_the_command_and_consumed_once_they_are_there(
    kafka: Kafka, postgres: PostgresServer, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    url = postgres.url(postgres.create_database())
    config = consumer_config(url, kafka.bootstrap)
    config["aggregation"] |= {"group": f"tables-{os.getpid()}"}
    daemon = Fleet(start_daemon, tmp_path, config).add()
    line = daemon.wait_log("consumption paused", limit_s=60)
    assert "has no tables; run: recodex-monitor configure-database -c FILE" in line
    await configure(url)
    daemon.wait_log("consumption resumed", limit_s=60)
    assert daemon.stop() == 0


async def test_embedded_every_result_is_counted_once_whenever_it_is_killed(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    spool = tmp_path / "spool.db"
    database = DatabaseSettings(file=str(tmp_path / "monitor.db"))
    records = await spool_records(BusSettings(file=str(spool)), 4000)
    config = {
        "bus": {"file": str(spool)},
        "database": {"file": database.file},
        "aggregation": {"flush_interval": 0.2, "fields": FIELDS},
    }
    fleet = Fleet(start_daemon, tmp_path, config)
    dice = random.Random(SEED)

    def consumed() -> int:
        if not Path(database.file).exists():
            return 0
        with (
            contextlib.closing(sqlite3.connect(database.file)) as connection,
            contextlib.suppress(sqlite3.OperationalError),  # no tables yet
        ):
            for (offset,) in connection.execute("SELECT next_offset FROM consumed_offset"):
                return int(offset)
        return 0

    for number in range(4):
        daemon = fleet.add()
        goal = records[number * 1000 + 1].offset
        wait_for(lambda goal=goal: consumed() > goal, "some to be consumed")  # type: ignore[misc]
        await asyncio.sleep(dice.uniform(0, 0.05))  # somewhere in the following batches
        fleet.kill(daemon)
    last = fleet.add().wait_ready()
    wait_for(lambda: consumed() > records[-1].offset, "all to be consumed")
    assert last.stop() == 0
    assert await tables(database) == plain_tables(records)


async def spool_records(settings: BusSettings, count: int) -> list[Record]:
    """Publish results, duplicates and poison to the spool, and return what it holds of them."""
    producers = Producers("", SEED)
    recent: list[tuple[bytes, bytes]] = []
    base = time.time() // 86400 * 86400 - 2 * 86400
    bus = SpoolBus(settings)
    await bus.start()
    try:
        for _ in range(count):
            key, value = producers.message(base, recent)
            bus.publish(TOPIC, value=value, key=key.decode(), headers={})
            producers.sent += 1
        assert await bus.committed()
        consumer = bus.consumer(TOPIC, group=None)
        records: list[Record] = []
        while len(records) < count:
            records += await consumer.poll(max_records=1000)
        await consumer.close()
        return records
    finally:
        await bus.close()
