"""What the spool, Kafka and the database hold."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from monitor.bus import Record
from tests.aggregation import plain


def result_of(record: Record) -> dict[str, Any] | None:
    """Return the result in a message, or None."""
    with contextlib.suppress(ValueError):
        found = json.loads(record.value)
        if isinstance(found, dict) and "scheduled_at" in found:
            return found
    return None


def reached(offsets: dict[int, int] | None, wanted: dict[int, int]) -> bool:
    return offsets is not None and all(
        offsets.get(partition, 0) >= offset for partition, offset in wanted.items()
    )


@contextlib.contextmanager
def opened(file: Path) -> Any:
    with contextlib.closing(
        sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
    ) as connection:
        yield connection


def spooled(spool: Path) -> int:
    with opened(spool) as connection:
        return int(connection.execute("SELECT count(*) FROM message").fetchone()[0])


def last_offset(spool: Path, topic: str) -> int:
    with opened(spool) as connection:
        sql = (
            "SELECT max(offset) FROM message JOIN topic ON topic.id = message.topic WHERE name = ?"
        )
        return int(connection.execute(sql, (topic,)).fetchone()[0])


def records_of(database: Path) -> list[Record]:
    """Return the raw results of an SQLite file as if they had come over the bus."""
    names = (
        "job_id", "scheduled_at", "checked_at", "url", "kind", "up", "status", "response_time",
        "error",
    )  # fmt: skip
    with opened(database) as connection:
        rows = connection.execute(f"SELECT {', '.join(names)} FROM availability_result").fetchall()
    return [
        Record(
            plain.TOPIC,
            0,
            number,
            None,
            {},
            json.dumps({**dict(zip(names, row, strict=True)), "up": bool(row[5])}).encode(),
            0.0,
        )
        for number, row in enumerate(rows)
    ]


def topic_ids(bootstrap: str) -> list[str]:
    """Return the ids of the model events in Kafka, those of one key in order."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    try:
        places = [
            TopicPartition("model-updates", number)
            for number in consumer.partitions_for_topic("model-updates")
        ]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        ids = []
        deadline = time.monotonic() + 60
        while any(consumer.position(place) < ends[place] for place in places):
            assert time.monotonic() < deadline, "the topic could not be read to its end"
            for batch in consumer.poll(timeout_ms=500).values():
                ids += [dict(item.headers)["ce_id"].decode() for item in batch]
        return ids
    finally:
        consumer.close()
