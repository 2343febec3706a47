"""One batch, one transaction: raw rows, metrics from the new ones alone, rejects, offsets.

Everything happens or nothing does. The offsets come first, under a lock, and only move if
they still are what this consumer thinks: one that lost its partition and did not notice
loses the race, not the data. A batch that is written again, since nobody could tell
whether it was committed, is recognized by them.
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
    """Somebody else has advanced the offsets: what this consumer holds is not its to write."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch turned out to be; ``again`` when it had been committed before."""

    new: int = 0
    duplicates: int = 0
    rejected: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch with all that can be made ready before its transaction.

    ``candidates`` are its results, each once; ``results`` and ``metrics`` their rows as the
    database takes them, the metrics for the case that all of them are new.
    """

    batch: Batch
    granularities: Sequence[str]
    candidates: Sequence[Result]
    results: Any
    metrics: Any


def prepare(
    batch: Batch, granularities: Sequence[str], dialect: Dialect, *, oldest: float
) -> Prepared:
    """Make ``batch`` ready for :func:`write_batch` on a database of this kind.

    Results scheduled before ``oldest`` (s since the epoch) have waited too long to be counted.
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
    """Return by partition which offset of ``topic`` is to be read next."""
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

    ``expected`` holds what the stored offset of each of its partitions should be, None for
    one that was never stored. Raises OffsetsMovedError otherwise, and then writes nothing.
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
        # Messages of a topic that was deleted and made anew have the old one's offsets.
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
    """Advance the offsets; False where they are what is wanted already."""
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
                f"{topic}, partition {partition}: {stored.get(partition)} is stored,"
                f" not {expected[partition]}"
            )
        # The first consumer of a partition has no row to lock; whose row comes second, loses.
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
            raise OffsetsMovedError(f"{topic}, partition {partition}: another consumer was first")
    return True
