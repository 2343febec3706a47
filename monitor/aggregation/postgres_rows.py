"""Writes a batch to PostgreSQL: COPY into a temporary table, then one INSERT from it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

import msgspec

from monitor.aggregation.refusals import refusing
from monitor.aggregation.result_columns import COLUMN_LIST, COLUMN_TYPES
from monitor.aggregation.windows import Counters, Window
from monitor.messages import Result
from monitor.store import Connection, TablesError, expect_rows
from monitor.store.partitions import create_partitions
from monitor.yielding import in_slices

__all__ = ["PARTITION_S", "add_metrics", "insert_results", "metric_rows", "result_rows"]

PARTITION_S = 86400
"""Width of the partitions of ``availability_result``, in s."""


def _columns(*types: str) -> list[str]:
    return [name for name, kind in COLUMN_TYPES.items() if kind in types]


# The order of columns in COPY: first those whose values look the same in JSON.
_SIMPLE = _columns("bigint", "integer", "double precision", "boolean")
_TEXTS = _columns("text")
_OBJECTS = _columns("jsonb")
_RESULT_TYPES = {name: COLUMN_TYPES[name] for name in (*_SIMPLE, *_TEXTS, *_OBJECTS)}
_simple = attrgetter(*_SIMPLE)
_texts = attrgetter(*_TEXTS)
_objects = [attrgetter(name) for name in _OBJECTS]

# Sorted, so that two consumers that write the same rows wait for each other and do not deadlock.
_INSERT = (
    f"INSERT INTO availability_result ({COLUMN_LIST})"  # noqa: S608 - our own columns
    f" SELECT {COLUMN_LIST} FROM {{staged}} ORDER BY job_id, scheduled_at, location"
    " ON CONFLICT (job_id, scheduled_at, location) DO NOTHING"
    " RETURNING job_id, scheduled_at, location"
)
_LEFT_OUT = (
    "SELECT count(*) FROM {staged} AS s WHERE NOT EXISTS (SELECT FROM availability_result AS r"
    " WHERE r.job_id = s.job_id AND r.scheduled_at = s.scheduled_at"
    " AND r.location = s.location)"
)
# Whether a trigger may change what is inserted, in the table or in a partition.
_TRIGGERED = (
    "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgtype & 7 = 7 AND tgenabled <> 'D' AND tgrelid IN"
    " (SELECT relid FROM pg_partition_tree('availability_result')))"
)
_METRIC_TYPES = {
    "job_id": "bigint",
    "dt": "bigint",
    "checks": "bigint",
    "failures": "bigint",
    "rt_min": "double precision",
    "rt_max": "double precision",
    "rt_sum": "double precision",
    "granularity": "text",
    "location": "text",
    "data": "jsonb",
    "rt_buckets": "jsonb",
    "fields": "jsonb",
}


def _added(column: str) -> str:
    """Return the counts of a stored row and those of the excluded one, added key by key.

    A function such as counts_add, which does the same, would be started again for each row.
    """
    return (
        f"m.{column} || coalesce((SELECT jsonb_object_agg(key,"  # noqa: S608
        f" value::bigint + coalesce((m.{column} -> key)::bigint, 0))"
        f" FROM jsonb_each(excluded.{column})), '{{{{}}}}')"
    )


_UPSERT = (
    f"INSERT INTO availability_metric AS m ({', '.join(_METRIC_TYPES)})"  # noqa: S608
    " SELECT job_id, to_timestamp(dt), checks, failures, rt_min, rt_max, rt_sum, granularity,"
    " location, data, rt_buckets, fields FROM {staged}"
    " ORDER BY job_id, dt, granularity, location"
    " ON CONFLICT (job_id, dt, granularity, location) DO UPDATE SET"
    " checks = m.checks + excluded.checks, failures = m.failures + excluded.failures,"
    " rt_min = least(m.rt_min, excluded.rt_min), rt_max = greatest(m.rt_max, excluded.rt_max),"
    " rt_sum = m.rt_sum + excluded.rt_sum,"
    f" data = {_added('data')}, rt_buckets = {_added('rt_buckets')},"
    " fields = CASE excluded.fields WHEN '{{}}' THEN m.fields"
    " ELSE fields_add(m.fields, excluded.fields) END"
)

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_SPECIAL = re.compile(r"[\\\t\n\r]")

_NULL = "\\N"

_encode = msgspec.json.Encoder().encode


def result_rows(results: Iterable[Result]) -> bytes:
    """Return the rows of raw results, in the text format of COPY."""
    return b"".join(map(_result_line, results))


def metric_rows(windows: Mapping[Window, Counters]) -> bytes:
    """Return the rows of counters, in the text format of COPY."""
    return b"".join(map(_metric_line, in_slices(windows.items())))


def insert_results(
    connection: Connection, results: Sequence[Result], rows: bytes
) -> Sequence[Result]:
    """Insert the new results and return them; ``results`` itself if all are new.

    Raises RefusedError if the types of the columns cannot hold a value, and TablesError if the
    table leaves results out.
    """
    if not results:
        return results
    for day in sorted({result.scheduled_at // PARTITION_S for result in results}):
        create_partitions(
            connection,
            "availability_result",
            since=day * PARTITION_S,
            until=day * PARTITION_S,
            width_s=PARTITION_S,
        )
    staged = _stage(connection, "result", _RESULT_TYPES, rows)
    with connection.raw.cursor() as cursor:
        ((triggered,),) = connection.query(_TRIGGERED)
        cursor.execute(_INSERT.format(staged=staged))
        if cursor.rowcount == len(results) and not triggered:
            new = results
        else:
            inserted = set(cursor.fetchall())
            new = [
                result
                for result in results
                if (result.job_id, result.scheduled_at, result.location) in inserted
            ]
            if len(new) != cursor.rowcount:
                raise TablesError(
                    "table availability_result",
                    "it gives back other values of job_id, scheduled_at or location than it was"
                    " given; were the columns changed, or does a trigger? nothing is lost",
                )
            # Of the others each must be there already.
            expect_rows(
                "availability_result", connection.query(_LEFT_OUT.format(staged=staged))[0][0]
            )
    _unstage(connection, staged)
    return new


def add_metrics(connection: Connection, rows: bytes) -> None:
    """Add the counters to the stored ones."""
    if not rows:
        return
    staged = _stage(connection, "metric", _METRIC_TYPES, rows)
    written = connection.execute(_UPSERT.format(staged=staged))
    expect_rows("availability_metric", rows.count(b"\n") - written)
    _unstage(connection, staged)


def _stage(connection: Connection, what: str, types: Mapping[str, str], rows: bytes) -> str:
    """Copy ``rows`` into a table that only this connection uses, and return its name.

    It is a temporary table. A role without the TEMP privilege gets an ordinary table, which
    :func:`_unstage` drops in the same transaction.
    """
    columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
    ((temporary, process),) = connection.query(
        "SELECT has_database_privilege(current_database(), 'TEMP'), pg_backend_pid()"
    )
    if temporary:
        table = f"pg_temp.incoming_{what}"
        connection.execute(
            f"CREATE TEMP TABLE IF NOT EXISTS incoming_{what} ({columns}) ON COMMIT DELETE ROWS"
        )
    else:
        table = f"incoming_{what}_{process}"
        connection.execute(f"CREATE UNLOGGED TABLE {table} ({columns})")
    # The columns have the types of our own tables: what they cannot hold, no table of ours can.
    with connection.raw.cursor() as cursor, refusing(connection):
        cursor.copy_expert(f"COPY {table} ({', '.join(types)}) FROM STDIN", io.BytesIO(rows))
    return table


def _unstage(connection: Connection, table: str) -> None:
    if not table.startswith("pg_temp."):
        connection.execute(f"DROP TABLE {table}")


def _text(value: str | None) -> str:
    if value is None:
        return _NULL
    # Most texts need no escapes. These two tests are faster than the regular expression.
    if "\\" in value or not value.isprintable():
        return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], value)
    return value


def _result_line(result: Result) -> bytes:
    # msgspec formats numbers faster than str() does.
    simple = _encode(_simple(result))[1:-1].replace(b",", b"\t").replace(b"null", b"\\N")
    texts = "\t".join([_text(text) for text in _texts(result)]).encode()
    objects = [_encode(value(result)).replace(b"\\", b"\\\\") for value in _objects]
    return b"\t".join((simple, texts, *objects)) + b"\n"


def _metric_line(item: tuple[Window, Counters]) -> bytes:
    (job_id, start, granularity, location), counters = item
    # msgspec formats numbers faster than repr() does. None of the words has a comma or a null.
    simple = _encode(
        (
            job_id,
            start,
            counters.checks,
            counters.failures,
            counters.rt_min,
            counters.rt_max,
            counters.rt_sum,
        )
    )[1:-1]
    if counters.rt_min is None:
        simple = simple.replace(b"null", b"\\N")
    return b"%b\t%b\t%b\t%b\t%b\t%b\n" % (
        simple.replace(b",", b"\t"),
        granularity.encode(),
        _text(location).encode() if location else b"",
        _encode(counters.data),
        _encode(counters.rt_buckets),
        _encode(counters.fields) if counters.fields else b"{}",
    )
