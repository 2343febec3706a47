"""Bytes on disk of a result, a metric, a log entry and a notification, and what they add up to."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monitor.aggregation.batch import Batch, parse_records
from monitor.aggregation.writer import prepare, write_batch
from monitor.bus import Record
from monitor.logs.entries import Entry
from monitor.logs.filters import Kind
from monitor.logs.tables import AcceptedUpload, commit
from monitor.store import Connection, DatabaseSettings, Store, open_store
from tests.aggregation.plain import result
from tests.servers.postgres import make_server

JOBS, MINUTES = 20, 600
ENTRIES = 20_000
MESSAGE = "connection to broker lost, retrying in 5 s (attempt 3, last error: timeout after 30 s)"
# What is kept by default: minutes of 30 days, hours and, here, days of a year.
MINUTE_WINDOWS = 30 * 1440
LONGER_WINDOWS = 365 * 24 + 365
KINDS = {
    "result": "result",
    "minute": "metric of a minute",
    "hour": "metric of an hour or a day",
    "entry": "log entry",
    "notification": "notification",
}
SITES = DEVICES = (10, 100, 1000)


def results(granularities: list[str]) -> Callable[[Connection], object]:
    """Return what writes a result a minute of every job, with the metrics of ``granularities``."""
    dice, base = random.Random(1), time.time() // 86400 * 86400 - MINUTES * 60

    def record(offset: int) -> Record:
        data = result(1 + offset % JOBS, base + 60 * (offset // JOBS))
        data |= {"url": "https://www.example.org/status", "response_time": dice.uniform(0.1, 0.3)}
        return Record("t", 0, offset, None, {}, json.dumps(data).encode(), 0.0)

    def write(connection: Connection) -> object:
        records = [record(offset) for offset in range(JOBS * MINUTES)]
        batch = Batch(parse_records(records, now=time.time(), keep_s=1e9))
        prepared = prepare(batch, granularities, connection.dialect, oldest=0)
        return write_batch(
            connection, prepared, topic="t", topic_id=None, expected={0: None}, now=time.time()
        )

    return write


def entries(kind: Kind) -> Callable[[Connection], object]:
    """Return what writes log entries or notifications."""

    def write(connection: Connection) -> object:
        now = time.time()
        some = [
            Entry("info", now - n / 100, f"device-{n % 100:04}", MESSAGE) for n in range(ENTRIES)
        ]
        upload = AcceptedUpload(kind, some)
        return commit(connection, [upload], received_at=now, width_s=3600, instance="i")

    return write


async def size(store: Store, settings: DatabaseSettings) -> int:
    """Return the bytes of all tables and indexes."""
    if store.dialect == "sqlite":
        pages: Any = await store.read(lambda c: c.query("SELECT sum(pgsize - unused) FROM dbstat"))
        return int(pages[0][0])
    found: Any = await store.read(
        lambda c: c.query(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
        )
    )
    return int(found[0][0])


async def bytes_each(new: Callable[[], DatabaseSettings]) -> dict[str, float]:
    """Return the bytes of one row of each kind."""
    cases = {
        "result": (results([]), JOBS * MINUTES),
        "both": (results(["minute"]), JOBS * MINUTES),
        "hours": (results(["hour"]), JOBS * MINUTES),
        "entry": (entries(Kind.LOGS), ENTRIES),
        "notification": (entries(Kind.NOTIFICATIONS), ENTRIES),
    }
    found = {}
    for name, (write, count) in cases.items():
        settings = new()
        store = open_store(settings)
        await store.migrate()
        before = await size(store, settings)
        await store.transaction(write)
        found[name] = (await size(store, settings) - before) / count
        await store.close()
    found["minute"] = found.pop("both") - found["result"]
    found["hour"] = (found.pop("hours") - found["result"]) * 60
    return found


def show(databases: Mapping[str, Mapping[str, float]]) -> None:
    """Print the tables of the page on sizing."""
    print("| bytes of one | " + " | ".join(databases) + " |")
    print("|---|" + "---|" * len(databases))
    for kind, name in KINDS.items():
        print(f"| {name} | " + " | ".join(f"{of[kind]:.0f}" for of in databases.values()) + " |")
    print("\n| what is kept | " + " | ".join(databases) + " |")
    print("|---|" + "---|" * len(databases))
    for sites in SITES:
        of = [
            MINUTE_WINDOWS * (each["result"] + each["minute"]) + LONGER_WINDOWS * each["hour"]
            for each in databases.values()
        ]
        print(f"| {sites} sites | " + " | ".join(human(sites * each) for each in of) + " |")
    for devices in DEVICES:
        of = [86400 * each["entry"] for each in databases.values()]
        print(f"| {devices} devices | " + " | ".join(human(devices * each) for each in of) + " |")


def human(size_bytes: float) -> str:
    """Return two digits and a unit."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size_bytes < 1000 or unit == "TB":
            break
        size_bytes /= 1000
    return f"{size_bytes:.2g} {unit}" if size_bytes < 10 else f"{size_bytes:.0f} {unit}"


def main() -> int:
    argparse.ArgumentParser(prog="benchmarks/run sizing", description=__doc__).parse_args()
    databases = {}
    with tempfile.TemporaryDirectory() as folder:
        files = iter(range(100))
        databases["SQLite"] = asyncio.run(
            bytes_each(lambda: DatabaseSettings(file=str(Path(folder) / f"{next(files)}.db")))
        )
    server = make_server({"fsync": "off"})
    try:
        server.start()
        databases["PostgreSQL"] = asyncio.run(
            bytes_each(lambda: DatabaseSettings(url=server.url(server.create_database())))
        )
    finally:
        server.remove()
    show(databases)
    return 0


if __name__ == "__main__":
    sys.exit(main())
