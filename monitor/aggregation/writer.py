"""Writes one batch in one transaction: offsets, raw rows, metrics, rejected messages.

Only new rows are counted in the metrics. The transaction first locks the stored offsets and
compares them with what this consumer expects. If they differ, another consumer has taken over
the partition, and nothing is written. The same comparison recognizes a batch that is written
again because the outcome of its first commit was unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitor.aggregation import postgres_rows, sqlite_rows
from monitor.aggregation.batch import Batch, Rejected
from monitor.aggregation.fields import Measure
from monitor.aggregation.offsets import Place, advance
from monitor.aggregation.purged import purged_before
from monitor.aggregation.refusals import blaming_the_tables
from monitor.aggregation.windows import WIDTHS_S, aggregate
from monitor.messages import Result
from monitor.store import Connection, Dialect
from monitor.yielding import in_slices

__all__ = [
    "Prepared",
    "Written",
    "count_results",
    "prepare",
    "prepare_results",
    "write_batch",
]


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
    measures: Sequence[Measure] = ()


def prepare(
    batch: Batch,
    granularities: Sequence[str],
    dialect: Dialect,
    *,
    oldest: float,
    measures: Sequence[Measure] = (),
) -> Prepared:
    """Prepare ``batch`` for :func:`write_batch` on a database of this dialect.

    Results scheduled before ``oldest`` (s since the epoch) are rejected as too old.
    """
    batch = batch.without_older(oldest)
    return prepare_results(batch, batch.results(), granularities, dialect, measures)


def prepare_results(
    batch: Batch,
    results: Sequence[Result],
    granularities: Sequence[str],
    dialect: Dialect,
    measures: Sequence[Measure],
) -> Prepared:
    """Prepare ``results`` for :func:`count_results`."""
    rows = postgres_rows if dialect == "postgresql" else sqlite_rows
    once: dict[tuple[int, float, str], Result] = {}
    for result in in_slices(results):
        once.setdefault((result.job_id, result.scheduled_at, result.location), result)
    candidates = list(once.values())
    return Prepared(
        batch,
        granularities,
        candidates,
        rows.result_rows(in_slices(candidates)),
        rows.metric_rows(aggregate(in_slices(candidates), granularities, measures)),
        measures,
    )


def write_batch(
    connection: Connection,
    prepared: Prepared,
    *,
    topic: str,
    topic_id: str | None,
    expected: Mapping[int, Place | None],
    now: float,
) -> Written:
    """Write a batch in the connection's transaction.

    ``topic_id`` is that of the topic that it was read from. ``expected`` maps each of its
    partitions to the place that should be stored, or None if none should be. Raises
    OffsetsMovedError, and writes nothing, if another one is stored.
    """
    batch = prepared.batch
    rejected = batch.rejected()
    with blaming_the_tables(connection):
        if not advance(connection, topic, batch.next_places(topic_id), expected):
            return Written(again=True)
        new = count_results(connection, prepared)
        _insert_rejected(connection, topic, rejected, now)
    return Written(len(new), len(batch) - len(rejected) - len(new), len(rejected))


def _insert_rejected(
    connection: Connection, topic: str, rejected: Sequence[tuple[int, int, Rejected]], now: float
) -> None:
    connection.insert(
        "rejected_message",
        ("topic", "partition", '"offset"', "rejected_at", "reason", "payload", "headers"),
        [
            (topic, partition, offset, now, why.reason, why.payload, why.headers)
            for partition, offset, why in rejected
        ],
        # Offsets repeat after a topic was deleted and created again.
        'ON CONFLICT (topic, partition, "offset") DO UPDATE SET rejected_at = excluded.rejected_at,'
        " reason = excluded.reason, payload = excluded.payload, headers = excluded.headers",
    )


def count_results(connection: Connection, prepared: Prepared) -> Sequence[Result]:
    """Insert the new ones of the candidates, count them in the metrics, and return them.

    A window that was purged is not made again: it would have only these.
    """
    rows = postgres_rows if connection.dialect == "postgresql" else sqlite_rows
    candidates, metrics = prepared.candidates, prepared.metrics
    if not candidates:
        return candidates
    horizons = purged_before(connection)
    new: Sequence[Result] = rows.insert_results(connection, candidates, prepared.results)
    gone = max(horizons.values(), default=0.0) > _first_window(new)
    if new is not candidates or gone:
        windows = aggregate(new, prepared.granularities, prepared.measures)
        kept = {key: counts for key, counts in windows.items() if key[1] >= horizons[key[2]]}
        metrics = rows.metric_rows(kept)
    rows.add_metrics(connection, metrics)
    return new


def _first_window(results: Sequence[Result]) -> float:
    widest = max(WIDTHS_S.values())
    return min((result.scheduled_at for result in results), default=math.inf) - widest
