"""Kafka's part of benchmarks/aggregation.py: the cost of a codec, the gain of two consumers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from monitor.aggregation.offsets import stored_places
from monitor.store import DatabaseSettings, open_store
from tests.servers.kafka import Kafka

__all__ = ["codecs", "consumers", "sections_of"]

_LIMIT_S = 180.0
# The first results of a consumer are those of its start.
_FROM, _TO = 0.1, 0.95
# Fewer are written in one or two batches, between which there is no rate.
_LEAST_SHARED = 400_000


def sections_of(broker: Kafka, topic: str, database: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a consumer of ``topic``."""
    return {
        "kafka": {"bootstrap_servers": [broker.bootstrap]},
        "database": database,
        "aggregation": {"topic": topic, "group": topic, "flush_interval": 5},
    }


def codecs(
    make_topic: Callable[..., None],
    make_database: Callable[[], dict[str, Any]],
    consume: Callable[[dict[str, Any], int], dict[str, float]],
    broker: Kafka,
    count: int,
) -> None:
    """Print the CPU of a result from a topic of each codec, compared to an uncompressed one."""
    plain = 0.0
    for name in (None, "zstd", "lz4", "snappy", "gzip"):
        topic = f"codec-{name or 'none'}"
        make_topic(topic, count=count, partitions=3, compression=name)
        found = consume(sections_of(broker, topic, make_database()), count)
        cpu = found["cpu_s"] / found["measured"]
        plain = plain or cpu
        case = f"Kafka to PostgreSQL, {name or 'uncompressed'}"
        print(
            f"{case:42} {cpu * 1e6:4.0f} us of CPU each, {cpu / plain:.2f} times uncompressed",
            flush=True,
        )


def consumers(
    make_topic: Callable[..., None],
    make_database: Callable[[], dict[str, Any]],
    broker: Kafka,
    count: int,
) -> None:
    """Print the rate of one consumer and of two, on two partitions."""
    count = max(count, _LEAST_SHARED)
    rates: list[float] = []
    for number in (1, 2):
        topic = f"shared-by-{number}"
        make_topic(topic, count=count, partitions=2, compression=None)
        database = make_database()
        with _running(sections_of(broker, topic, database), number):
            rates.append(asyncio.run(_rate(database, topic, count)))
        print(
            f"{f'Kafka to PostgreSQL, consumers: {number}':42}"
            f" {rates[-1]:9,.0f} results/s, {rates[-1] / rates[0]:.2f} times one",
            flush=True,
        )


@contextlib.contextmanager
def _running(sections: dict[str, Any], number: int) -> Iterator[None]:
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"relay": False, **sections}, file)
        file.flush()
        command = [sys.executable, "-m", "benchmarks.aggregation_consumer", file.name, str(2**62)]
        started = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(number)
        ]
        try:
            yield
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(30)


async def _rate(database: dict[str, Any], topic: str, count: int) -> float:
    """Return results/s between the first tenth and the end of the topic."""
    store = open_store(DatabaseSettings(**database))
    first: tuple[float, int] | None = None
    try:
        async with asyncio.timeout(_LIMIT_S):
            while True:
                places = await store.read(lambda connection: stored_places(connection, topic))
                done = sum(place.offset for place in places.values())
                if first is None and done >= count * _FROM:
                    first = time.monotonic(), done
                if first is not None and done >= count * _TO:
                    return (done - first[1]) / (time.monotonic() - first[0])
                await asyncio.sleep(0.02)
    finally:
        await store.close()
