"""Time partitions in PostgreSQL: created in advance, dropped as a whole.

A table is ``PARTITION BY RANGE`` on a ``double precision`` column of seconds since the epoch. Our
partitions are named ``TABLE_FROM_TO`` with both ends in whole seconds. Others may be attached, too,
with any name and range: new ones do not overlap them, and they are never dropped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from monitor.store.interface import Connection, Store, TablesError
from monitor.store.purge import delete_in_steps

__all__ = ["Range", "create_partitions", "delete_rows", "drop_partitions", "plan_partitions"]

Range = tuple[int, int]
"""Start (included) and end (excluded) of a partition, s since the epoch."""

_LOCK_TIMEOUT_MS = 1000  # a DROP that waits for a long query blocks all other statements
_BOUNDS = re.compile(r"FOR VALUES FROM \((.+)\) TO \((.+)\)")


class _Partition(NamedTuple):
    """An attached partition; without ``bounds`` it is the DEFAULT one."""

    name: str
    oid: int
    bounds: tuple[float, float] | None


def plan_partitions(
    existing: Iterable[tuple[float, float]], since: float, until: float, width_s: int
) -> list[Range]:
    """Return the partitions to add so that every instant from ``since`` to ``until`` has one.

    They start at multiples of ``width_s`` and are cut so that they do not overlap existing ones.
    Next to bounds that are not whole seconds, less than a second stays without one.
    """
    taken = sorted((math.floor(low), math.ceil(high)) for low, high in _finite(existing))
    missing: list[Range] = []
    start = math.floor(since) // width_s * width_s
    while start <= until:
        end = start + width_s
        at = start
        for low, high in taken:
            if high <= at or low >= end:
                continue
            if at < low:
                missing.append((at, low))
            at = max(at, high)
        if at < end:
            missing.append((at, end))
        start = end
    return missing


def create_partitions(
    connection: Connection, table: str, *, since: float, until: float, width_s: int
) -> list[Range]:
    """Create the missing partitions in the caller's transaction and return them.

    This does not block readers and writers of other partitions. Raises TablesError if one cannot be
    created, because it is detached, or because its rows are in the DEFAULT partition.
    """
    if not plan_partitions(_bounds(connection, table), since, until, width_s):
        return []
    connection.query("SELECT pg_advisory_xact_lock(hashtext(current_schema() || %s))", (table,))
    missing = plan_partitions(_bounds(connection, table), since, until, width_s)
    for low, high in missing:
        _refuse_in_the_way(connection, table, low, high)
        name = f'"{table}_{low}_{high}"'
        # ATTACH takes a weaker lock on the table than CREATE TABLE ... PARTITION OF.
        connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)")
        connection.execute(
            f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})"
        )
    return missing


async def drop_partitions(
    store: Store,
    table: str,
    *,
    before: float,
    lock_timeout_ms: int = _LOCK_TIMEOUT_MS,
) -> list[Range]:
    """Drop our partitions that end at ``before`` or earlier, each in a transaction; return them.

    From partitions that others attached, the rows before that are deleted. Raises
    UnavailableError if a long query uses one of them: try again later. Statements that need the
    table in the meantime wait as well, for at most ``lock_timeout_ms``.
    """
    dropped: list[Range] = []
    for partition in sorted(await store.read(lambda connection: _attached(connection, table))):
        name, bounds = partition.name, partition.bounds
        own = _own(table, name)
        if own is None or bounds != (float(own[0]), float(own[1])):
            if bounds is None or bounds[0] < before:
                await _delete(store, table, partition, before)
            continue
        if own[1] > before:
            continue

        def drop(connection: Connection, name: str = name) -> None:
            connection.execute(f"SET LOCAL lock_timeout = {lock_timeout_ms}")
            connection.execute(f'DROP TABLE IF EXISTS "{name}"')

        await store.transaction(drop)
        dropped.append(own)
    return sorted(dropped)


async def _delete(store: Store, table: str, partition: _Partition, before: float) -> None:
    """Delete the rows of one partition that are before ``before``.

    Through the table: the partition may be owned by somebody else.
    """

    def step(connection: Connection, limit: int) -> int:
        # It may have partitions itself.
        inside = "tableoid IN (SELECT relid FROM pg_partition_tree(%s::oid::regclass))"
        condition = f"{_key(connection, table)} < %s AND {inside}"
        return delete_rows(connection, table, condition, (before, partition.oid), limit)

    await delete_in_steps(store, step)


def delete_rows(
    connection: Connection, table: str, condition: str, parameters: Sequence[Any], limit: int
) -> int:
    """Delete ``limit`` rows that meet a condition, or a few more; return how many.

    By their places: a BRIN index only finds the pages that may hold them. The places are those in a
    partition, and others may have given partitions to any table. So the condition counts again.
    """
    return connection.execute(
        f"DELETE FROM {table} WHERE {condition} AND ctid = ANY(ARRAY("  # noqa: S608 - our own names
        f"SELECT ctid FROM {table} WHERE {condition} LIMIT %s))",
        (*parameters, *parameters, limit),
    )


def _refuse_in_the_way(connection: Connection, table: str, low: int, high: int) -> None:
    """Raise TablesError if the partition cannot be attached, and say what to do."""
    server = f"table {table}"
    days = f"{_instant(low)} to {_instant(high)}"
    name = f"{table}_{low}_{high}"
    if connection.query(
        "SELECT 1 FROM pg_class WHERE relname = %s"
        " AND relnamespace = current_schema()::regnamespace",
        (name,),
    ):
        raise TablesError(
            server,
            f"the partition {name} ({days}) is detached; attach it again (ALTER TABLE {table}"
            f" ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})), or move it to another"
            " schema; nothing is lost meanwhile",
        )
    key = _key(connection, table)
    for other in _attached(connection, table):
        # No other partition has this range.
        if other.bounds is None and connection.query(
            f"SELECT 1 FROM {table} WHERE {key} >= %s AND {key} < %s LIMIT 1",  # noqa: S608
            (low, high),
        ):
            raise TablesError(
                server,
                f"the DEFAULT partition {other.name} has rows of {days}, so that they cannot get"
                f" their own partition; detach it (ALTER TABLE {table} DETACH PARTITION"
                f" {other.name}) and insert its rows into {table}; nothing is lost meanwhile",
            )


def _key(connection: Connection, table: str) -> str:
    """Return the column of the instants."""
    ((definition,),) = connection.query(
        "SELECT pg_get_partkeydef((current_schema() || '.' || %s)::regclass)", (table,)
    )
    return str(definition).partition("(")[2].rstrip(")")


def _attached(connection: Connection, table: str) -> list[_Partition]:
    rows = connection.query(
        "SELECT c.relname, c.oid::bigint, pg_get_expr(c.relpartbound, c.oid)"
        " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = (current_schema() || '.' || %s)::regclass",
        (table,),
    )
    found = []
    for name, oid, expression in rows:
        match = _BOUNDS.search(expression or "")
        bounds = None if match is None else (_bound(match[1]), _bound(match[2]))
        found.append(_Partition(name, oid, bounds))
    return found


def _bounds(connection: Connection, table: str) -> list[tuple[float, float]]:
    return [each.bounds for each in _attached(connection, table) if each.bounds is not None]


def _bound(text: str) -> float:
    ends = {"MINVALUE": -math.inf, "MAXVALUE": math.inf}
    return ends[text] if text in ends else float(text.strip("'").replace("Infinity", "inf"))


def _finite(ranges: Iterable[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    # Beyond what any calendar shows.
    limit = 1e15
    return ((max(low, -limit), min(high, limit)) for low, high in ranges)


def _own(table: str, name: str) -> Range | None:
    match = re.fullmatch(re.escape(table) + r"_(-?\d+)_(-?\d+)", name)
    return None if match is None else (int(match[1]), int(match[2]))


def _instant(at: int) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(at)
