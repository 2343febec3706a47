"""Writes a batch to SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from monitor.aggregation.fields import FieldCounters, add_fields
from monitor.aggregation.refusals import refusing
from monitor.aggregation.result_columns import COLUMN_LIST, COLUMN_TYPES, row_of
from monitor.aggregation.windows import Counters, Window, add_up
from monitor.messages import Result
from monitor.store import Connection, TablesError

__all__ = ["add_metrics", "insert_results", "metric_rows", "result_rows"]

_INSERT = (
    f"INSERT INTO availability_result ({COLUMN_LIST})"  # noqa: S608 - our own columns
    f" VALUES ({', '.join('?' * len(COLUMN_TYPES))})"
    " ON CONFLICT (job_id, scheduled_at, location) DO NOTHING"
)
_FIND = "SELECT 1 FROM availability_result WHERE job_id = ? AND scheduled_at = ? AND location = ?"
_UPSERT = (
    "INSERT INTO availability_metric AS m (job_id, dt, granularity, location, checks, failures, "
    " rt_min, rt_max, rt_sum, data, rt_buckets, fields)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (job_id, dt, granularity, location) DO UPDATE SET"
    " checks = m.checks + excluded.checks, failures = m.failures + excluded.failures,"
    " rt_min = coalesce(min(m.rt_min, excluded.rt_min), m.rt_min, excluded.rt_min),"
    " rt_max = coalesce(max(m.rt_max, excluded.rt_max), m.rt_max, excluded.rt_max),"
    " rt_sum = m.rt_sum + excluded.rt_sum, data = counts_add(m.data, excluded.data),"
    " rt_buckets = counts_add(m.rt_buckets, excluded.rt_buckets),"
    " fields = CASE excluded.fields WHEN '{}' THEN m.fields"
    " ELSE fields_add(m.fields, excluded.fields) END"
)

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, FieldCounters]).decode
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
            _encode(counters.fields).decode(),
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
    with refusing(connection):
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
    if len(new) < len(rows):
        _expect_all(connection, results)
    return new


def _expect_all(connection: Connection, results: Sequence[Result]) -> None:
    raw = connection.raw
    for result in results:
        if raw.execute(_FIND, _key(result)).fetchone() is None:
            raise TablesError("table availability_result", "a trigger of it left out rows")


def _key(result: Result) -> tuple[int, float, str]:
    return result.job_id, result.scheduled_at, result.location


def add_metrics(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add the counters to the stored ones."""
    connection.raw.create_function("counts_add", 2, _counts_add, deterministic=True)
    connection.raw.create_function("fields_add", 2, _fields_add, deterministic=True)
    connection.raw.executemany(_UPSERT, rows)


def _counts_add(first: str, second: str) -> str:
    return _encode(add_up(_decode_counts(first), _decode_counts(second))).decode()


def _fields_add(first: str, second: str) -> str:
    return _encode(add_fields(_decode_fields(first), _decode_fields(second))).decode()
