"""Aggregation: results/s from the bus to committed rows and metrics, retention, memory.

Needs PostgreSQL and what the tests take for Kafka (Java, Maven) on this machine; the servers
run on the same cores as the consumer, PostgreSQL with its defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import aggregation_kafka, baseline_aggregation
from benchmarks.example_result import example_result
from benchmarks.process import family_cpu_seconds
from monitor.bus import BusSettings
from monitor.bus.spool import SpoolBus
from monitor.messages import Result, encode
from monitor.store import DatabaseSettings, open_store
from monitor.store.partitions import create_partitions, drop_partitions
from tests.servers.kafka import Kafka, find_jars
from tests.servers.postgres import PostgresServer, make_server

TOPIC = "website_availability"
JOBS = 1000
CORES = os.cpu_count() or 1


def results(count: int, *, minutes: int) -> Iterator[Result]:
    """Yield ``count`` results of 1000 jobs, spread over ``minutes`` windows each, up to now."""
    rounds = count // JOBS
    end = time.time() // 60 * 60
    for turn in range(rounds):
        window = turn * minutes // rounds
        scheduled = end - 60.0 * (minutes - window) + (turn * 7919 % 59000) / 1000
        for job in range(1, JOBS + 1):
            number = turn * JOBS + job
            yield example_result(number, job=job, scheduled_at=scheduled + job / 1e5)


def consume(sections: dict[str, Any], messages: int) -> dict[str, float]:
    """Drain the topic in a process of its own and return what it says."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"relay": False, "aggregation": {"flush_interval": 5}, **sections}, file)
        file.flush()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.aggregation_consumer", file.name, str(messages)],
            check=True,
            stdout=subprocess.PIPE,
        )
    found: dict[str, float] = json.loads(done.stdout)
    assert found["results"] == messages, found
    return found


def cpu_us(found: dict[str, float]) -> float:
    return found["cpu_s"] / found["measured"] * 1e6


def show(name: str, found: dict[str, float]) -> None:
    print(
        f"{name:42} {found['measured'] / found['took_s']:9,.0f} results/s"
        f"  {cpu_us(found):4.0f} us of CPU each"
        f"  {found['memory_bytes'] / 1e6:6.0f} MB resident"
        f"  {found['longest_commit_s'] * 1e3:6.0f} ms longest transaction",
        flush=True,
    )


async def fill_spool(settings: BusSettings, count: int, minutes: int) -> None:
    bus = SpoolBus(settings)
    await bus.start()
    for number, result in enumerate(results(count, minutes=minutes)):
        ticket = bus.publish(
            TOPIC, value=encode(result), key=str(result.job_id), headers=result.headers()
        )
        if number % 5000 == 0:
            await bus.committed(ticket)
    await bus.committed()
    await bus.close()


def spool_case(
    directory: Path, database: dict[str, Any], count: int, minutes: int
) -> dict[str, float]:
    bus = {"file": str(directory / "spool.db"), "max_bytes": 2_000_000_000}
    asyncio.run(fill_spool(BusSettings(**bus), count, minutes))  # type: ignore[arg-type]
    return consume({"bus": bus, "database": database}, count)


def sqlite(count: int) -> None:
    for name, minutes in (("each in a new minute", count // JOBS), ("in the same windows", 5)):
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            database = {"file": str(directory / "monitor.db")}
            found = spool_case(directory, database, count, minutes)
        show(f"SQLite from the spool, {name}", found)


def postgres(server: PostgresServer, count: int) -> None:
    for name, minutes in (("each in a new minute", count // JOBS), ("in the same windows", 5)):
        with tempfile.TemporaryDirectory() as folder:
            database = {"url": server.url(server.create_database())}
            asyncio.run(migrate(database))
            found = spool_case(Path(folder), database, count, minutes)
        show(f"PostgreSQL from the spool, {name}", found)


def kafka(server: PostgresServer, broker: Kafka, count: int) -> None:
    for name, minutes in (("each in a new minute", count // JOBS), ("in the same windows", 5)):
        topic = f"results-{minutes}"
        fill_topic(broker, topic, count, minutes)
        database = {"url": server.url(server.create_database())}
        asyncio.run(migrate(database))
        sections = {
            "kafka": {"bootstrap_servers": [broker.bootstrap], "partitions": 3},
            "database": database,
            "aggregation": {"topic": topic, "flush_interval": 5},
        }
        before = family_cpu_seconds(server.pid), family_cpu_seconds(broker.pid)
        found = consume(sections, count)
        after = family_cpu_seconds(server.pid), family_cpu_seconds(broker.pid)
        show(f"Kafka to PostgreSQL, {name}", found)
        postgres_us, kafka_us = (
            (end - begin) / count * 1e6 for begin, end in zip(before, after, strict=True)
        )
        most = CORES * 1e6 / (cpu_us(found) + postgres_us + kafka_us)
        print(
            f"{'':42} {most:9,.0f} results/s at most on {CORES} cores: PostgreSQL needs"
            f" {postgres_us:.0f} us of CPU each, Kafka {kafka_us:.0f} us",
            flush=True,
        )


def fill_topic(
    broker: Kafka,
    topic: str,
    count: int,
    minutes: int,
    *,
    partitions: int = 3,
    compression: str | None = None,
) -> None:
    from kafka import KafkaAdminClient, KafkaProducer
    from kafka.admin import NewTopic

    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.create_topics([NewTopic(topic, partitions, 1)])
    admin.close()
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap,
        linger_ms=50,
        batch_size=262_144,
        compression_type=compression,
    )
    for result in results(count, minutes=minutes):
        headers = [(name, value.encode()) for name, value in result.headers().items()]
        producer.send(topic, key=b"%d" % result.job_id, value=encode(result), headers=headers)
    producer.flush(timeout=120)
    producer.close()


def kafka_cases(server: PostgresServer, broker: Kafka, count: int, cases: Sequence[str]) -> None:
    def make_topic(topic: str, *, count: int, partitions: int, compression: str | None) -> None:
        fill_topic(
            broker, topic, count, count // JOBS, partitions=partitions, compression=compression
        )

    def make_database() -> dict[str, Any]:
        database = {"url": server.url(server.create_database())}
        asyncio.run(migrate(database))
        return database

    if "kafka" in cases:
        kafka(server, broker, count)
    if "codecs" in cases:
        aggregation_kafka.codecs(make_topic, make_database, consume, broker, count)
    if "consumers" in cases:
        aggregation_kafka.consumers(make_topic, make_database, broker, count)


def make_broker(directory: Path, *, core: int | None = None) -> Kafka:
    java = shutil.which("java")
    if java is None:
        raise SystemExit("the case kafka needs java (Debian package default-jre-headless)")

    def find(name: str, *, package: str) -> str:
        return shutil.which(name) or sys.exit(f"the case kafka needs {name} (package {package})")

    return Kafka(java, find_jars(find), directory, core=core)


def plain(server: PostgresServer, count: int) -> None:
    """The same rows and metrics written the plain way, without any bus."""
    for name, minutes in (("each in a new minute", count // JOBS), ("in the same windows", 5)):
        url = server.url(server.create_database())
        asyncio.run(migrate({"url": url}))
        asyncio.run(make_partitions(url))
        took = baseline_aggregation.write(url, list(map(encode, results(count, minutes=minutes))))
        print(f"{f'plain PostgreSQL, {name}':42} {count / took:9,.0f} results/s", flush=True)


async def make_partitions(url: str) -> None:
    store = open_store(DatabaseSettings(url=url))
    now = time.time()
    await store.transaction(
        lambda c: create_partitions(
            c, "availability_result", since=now - 86400, until=now, width_s=86400
        )
    )
    await store.close()


async def migrate(database: dict[str, Any]) -> None:
    store = open_store(DatabaseSettings(**database))
    await store.migrate()
    await store.close()


async def purge(server: PostgresServer, rows: int) -> None:
    """Drop one of 30 days of raw results."""
    name = server.create_database()
    settings = DatabaseSettings(url=server.url(name))
    store = open_store(settings)
    try:
        await store.migrate()
        await store.transaction(
            lambda c: create_partitions(
                c, "availability_result", since=0, until=30 * 86400 - 1, width_s=86400
            )
        )
        server.execute(
            "INSERT INTO website_availability.availability_result SELECT 1 + n % 1000,"
            f" n / 1000 * {30 * 86400 / (rows / 1000)}::float8, n / 1000 + 0.1,"
            " 'https://www.example-' || n % 1000 || '.org/', 'http', true, 200, 0.1, 0.1, NULL,"
            ' true, \'{"resolve":0.001,"connect":0.01,"tls":0.0,"processing":0.1,'
            f'"transfer":0.0004}}\', NULL, 1, 1, 0 FROM generate_series(0, {rows - 1}) n',
            name,
        )
        server.execute("CHECKPOINT")
        begun = time.monotonic()
        dropped = await drop_partitions(store, "availability_result", before=86400)
        took = time.monotonic() - begun
        assert dropped == [(0, 86400)], dropped
        print(f"purge of one of 30 days, {rows:,} rows {took * 1e3:9.1f} ms", flush=True)
    finally:
        await store.close()


CASES = ("plain", "kafka", "codecs", "consumers", "sqlite", "postgres", "purge")
_WITH_KAFKA = {"kafka", "codecs", "consumers"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="all by default")
    parser.add_argument("--results", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the purge")
    arguments = parser.parse_args()
    cases = arguments.cases or CASES
    if "sqlite" in cases:
        sqlite(arguments.results)
    if set(cases) - {"sqlite"}:
        server = make_server()
        try:
            server.start()
            if "plain" in cases:
                plain(server, max(arguments.results // 10, JOBS))
            if _WITH_KAFKA & set(cases):
                with tempfile.TemporaryDirectory() as folder:
                    broker = make_broker(Path(folder))
                    try:
                        broker.start()
                        kafka_cases(server, broker, arguments.results, cases)
                    finally:
                        broker.kill()
            if "postgres" in cases:
                postgres(server, arguments.results)
            if "purge" in cases:
                asyncio.run(purge(server, arguments.rows))
        finally:
            server.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
