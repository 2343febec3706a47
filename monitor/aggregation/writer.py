"""Writes one batch in one transaction: offsets, raw rows, metrics, rejected messages.

Only new rows are counted in the metrics. The transaction first locks the stored offsets and
compares them with what this consumer expects. If they differ, another consumer has taken over
the partition, and nothing is written. The same comparison recognizes a batch that is written
again because the outcome of its first commit was unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitor.aggregation import postgres_rows, sqlite_rows
from monitor.aggregation.batch import Batch
from monitor.aggregation.windows import aggregate
from monitor.messages import Result
from monitor.store import Connection, Dialect
from monitor.yielding import in_slices

__all__ = ["OffsetsMovedError", "Prepared", "Written", "prepare", "stored_offsets", "write_batch"]


class OffsetsMovedError(Exception):
    """Another consumer has advanced the stored offsets; this one must not write its messages."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of the messages of a batch; ``again`` if it was already committed."""

    new: int = 0
    duplicates: int = 0
    rejected: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch with everything that can be computed before its transaction.

    ``candidates`` are its results without duplicates. ``results`` and ``metrics`` are their rows in
    the form that the database needs; the metrics assume that all results are new.
    """

    batch: Batch
    granularities: Sequence[str]
    candidates: Sequence[Result]
    results: Any
    metrics: Any


def prepare(
    batch: Batch, granularities: Sequence[str], dialect: Dialect, *, oldest: float
) -> Prepared:
    """Prepare ``batch`` for :func:`write_batch` on a database of this dialect.

    Results scheduled before ``oldest`` (s since the epoch) are rejected as too old.
    """
    batch = batch.without_older(oldest)
    rows = postgres_rows if dialect == "postgresql" else sqlite_rows
    once: dict[tuple[int, float], Result] = {}
    for result in in_slices(batch.results()):
        once.setdefault((result.job_id, result.scheduled_at), result)
    candidates = list(once.values())
    return Prepared(
        batch,
        granularities,
        candidates,
        rows.result_rows(in_slices(candidates)),
        rows.metric_rows(aggregate(in_slices(candidates), granularities)),
    )


def stored_offsets(connection: Connection, topic: str) -> dict[int, int]:
    """Return by partition the next offset of ``topic`` to read."""
    rows = connection.query(
        "SELECT partition, next_offset FROM consumed_offset WHERE topic = %s", (topic,)
    )
    return dict(rows)


def write_batch(
    connection: Connection,
    prepared: Prepared,
    *,
    topic: str,
    expected: Mapping[int, int | None],
    now: float,
) -> Written:
    """Write a batch in the connection's transaction.

    ``expected`` maps each of its partitions to the offset that should be stored, or None if none
    should be. Raises OffsetsMovedError, and writes nothing, if another offset is stored.
    """
    batch = prepared.batch
    if not _advance(connection, topic, batch.next_offsets, expected):
        return Written(again=True)
    rows = postgres_rows if connection.dialect == "postgresql" else sqlite_rows
    candidates = prepared.candidates
    new = rows.insert_results(connection, candidates, prepared.results)
    if new is candidates:
        rows.add_metrics(connection, prepared.metrics)
    else:
        rows.add_metrics(connection, rows.metric_rows(aggregate(new, prepared.granularities)))
    rejected = batch.rejected()
    connection.insert(
        "rejected_message",
        ("topic", "partition", '"offset"', "rejected_at", "reason", "payload"),
        [
            (topic, partition, offset, now, why.reason, why.payload)
            for partition, offset, why in rejected
        ],
        # Offsets repeat after a topic was deleted and created again.
        'ON CONFLICT (topic, partition, "offset") DO UPDATE SET rejected_at = excluded.rejected_at,'
        " reason = excluded.reason, payload = excluded.payload",
    )
    return Written(len(new), len(batch) - len(rejected) - len(new), len(rejected))


def _advance(
    connection: Connection,
    topic: str,
    wanted: Mapping[int, int],
    expected: Mapping[int, int | None],
) -> bool:
    """Advance the offsets; False if they are already as wanted."""
    places = ", ".join(["%s"] * len(wanted))
    lock = " FOR UPDATE" if connection.dialect == "postgresql" else ""
    rows = connection.query(
        "SELECT partition, next_offset FROM consumed_offset"  # noqa: S608 - only placeholders
        f" WHERE topic = %s AND partition IN ({places}) ORDER BY partition{lock}",
        (topic, *wanted),
    )
    stored: dict[int, int] = dict(rows)
    if stored == wanted:
        return False
    for partition in sorted(wanted):
        if stored.get(partition) != expected[partition]:
            raise OffsetsMovedError(
                f"{topic}, partition {partition}: the stored offset is {stored.get(partition)},"
                f" expected {expected[partition]}"
            )
        # The first consumer of a partition has no row to lock: the second of two inserts fails.
        changed = connection.execute(
            "INSERT INTO consumed_offset (topic, partition, next_offset) VALUES (%s, %s, %s)"
            " ON CONFLICT DO NOTHING"
            if expected[partition] is None
            else "UPDATE consumed_offset SET next_offset = %s WHERE topic = %s AND partition = %s",
            (topic, partition, wanted[partition])
            if expected[partition] is None
            else (wanted[partition], topic, partition),
        )
        if changed != 1:
            raise OffsetsMovedError(f"{topic}, partition {partition}: another consumer wrote first")
    return True
