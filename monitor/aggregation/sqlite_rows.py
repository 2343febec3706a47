"""Writes a batch to SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from monitor.aggregation.result_columns import COLUMN_LIST, COLUMN_TYPES, row_of
from monitor.aggregation.windows import Counters, Window, add_up
from monitor.messages import Result
from monitor.store import Connection

__all__ = ["add_metrics", "insert_results", "metric_rows", "result_rows"]

_INSERT = (
    f"INSERT INTO availability_result ({COLUMN_LIST})"  # noqa: S608 - our own columns
    f" VALUES ({', '.join('?' * len(COLUMN_TYPES))}) ON CONFLICT DO NOTHING"
)
_UPSERT = (
    "INSERT INTO availability_metric AS m (job_id, dt, granularity, checks, failures, rt_min,"
    " rt_max, rt_sum, data, rt_buckets) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (job_id, dt, granularity) DO UPDATE SET"
    " checks = m.checks + excluded.checks, failures = m.failures + excluded.failures,"
    " rt_min = coalesce(min(m.rt_min, excluded.rt_min), m.rt_min, excluded.rt_min),"
    " rt_max = coalesce(max(m.rt_max, excluded.rt_max), m.rt_max, excluded.rt_max),"
    " rt_sum = m.rt_sum + excluded.rt_sum, data = counts_add(m.data, excluded.data),"
    " rt_buckets = counts_add(m.rt_buckets, excluded.rt_buckets)"
)

_encode = msgspec.json.Encoder().encode
_decode_counts = msgspec.json.Decoder(dict[str, int]).decode


def result_rows(results: Iterable[Result]) -> list[tuple[Any, ...]]:
    """Return the rows of raw results."""
    return [row_of(result) for result in results]


def metric_rows(windows: Mapping[Window, Counters]) -> list[tuple[Any, ...]]:
    """Return the rows of counters, in the order of the primary key."""
    return [
        (
            *window,
            counters.checks,
            counters.failures,
            counters.rt_min,
            counters.rt_max,
            counters.rt_sum,
            _encode(counters.data).decode(),
            _encode(counters.rt_buckets).decode(),
        )
        for window, counters in sorted(windows.items(), key=itemgetter(0))
    ]


def insert_results(
    connection: Connection, results: Sequence[Result], rows: Sequence[tuple[Any, ...]]
) -> Sequence[Result]:
    """Insert the new results and return them; ``results`` itself if all are new."""
    raw = connection.raw
    raw.execute("SAVEPOINT results")
    before = raw.total_changes
    raw.executemany(_INSERT, rows)
    if raw.total_changes - before == len(rows):
        raw.execute("RELEASE results")
        return results
    # Some exist already. Insert one by one to find out which.
    raw.execute("ROLLBACK TO results")
    new = [
        result
        for result, row in zip(results, rows, strict=True)
        if raw.execute(_INSERT, row).rowcount == 1
    ]
    raw.execute("RELEASE results")
    return new


def add_metrics(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add the counters to the stored ones."""
    connection.raw.create_function("counts_add", 2, _counts_add, deterministic=True)
    connection.raw.executemany(_UPSERT, rows)


def _counts_add(first: str, second: str) -> str:
    return _encode(add_up(_decode_counts(first), _decode_counts(second))).decode()
