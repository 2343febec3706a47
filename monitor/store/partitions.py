"""Time partitions in PostgreSQL: created in advance, dropped as a whole.

A table is ``PARTITION BY RANGE`` on a ``double precision`` column of seconds since the epoch.
Its partitions are named ``TABLE_FROM_TO`` with both ends in whole seconds. The names tell which
ranges exist, even after the width was changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from monitor.store.interface import Connection, Store

__all__ = ["Range", "create_partitions", "drop_partitions", "plan_partitions"]

Range = tuple[int, int]
"""Start (included) and end (excluded) of a partition, s since the epoch."""

_LOCK_TIMEOUT_MS = 1000  # a DROP that waits for a long query blocks all other statements


def plan_partitions(
    existing: Iterable[Range], since: float, until: float, width_s: int
) -> list[Range]:
    """Return the partitions to add so that every instant from ``since`` to ``until`` has one.

    They start at multiples of ``width_s`` and are cut so that they do not overlap existing ones.
    """
    taken = sorted(existing)
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

    This does not block readers and writers of other partitions.
    """
    if not plan_partitions(_existing(connection, table), since, until, width_s):
        return []
    connection.query("SELECT pg_advisory_xact_lock(hashtext(current_schema() || %s))", (table,))
    missing = plan_partitions(_existing(connection, table), since, until, width_s)
    for low, high in missing:
        name = f'"{table}_{low}_{high}"'
        # ATTACH takes a weaker lock on the table than CREATE TABLE ... PARTITION OF.
        connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)")
        connection.execute(
            f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})"
        )
    return missing


async def drop_partitions(
    store: Store, table: str, *, before: float, lock_timeout_ms: int = _LOCK_TIMEOUT_MS
) -> list[Range]:
    """Drop the partitions that end at ``before`` or earlier, each in a transaction; return them.

    Raises UnavailableError if a long query uses one of them: try again later. Statements that need
    the table in the meantime wait as well, for at most ``lock_timeout_ms``.
    """
    dropped = []
    for low, high in sorted(await store.read(lambda connection: _existing(connection, table))):
        if high > before:
            continue

        def drop(connection: Connection, name: str = f'"{table}_{low}_{high}"') -> None:
            connection.execute(f"SET LOCAL lock_timeout = {lock_timeout_ms}")
            connection.execute(f"DROP TABLE IF EXISTS {name}")

        await store.transaction(drop)
        dropped.append((low, high))
    return dropped


def _existing(connection: Connection, table: str) -> list[Range]:
    names = connection.query(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = (current_schema() || '.' || %s)::regclass",
        (table,),
    )
    pattern = re.compile(re.escape(table) + r"_(-?\d+)_(-?\d+)")
    found = (pattern.fullmatch(name) for (name,) in names)
    return [(int(match[1]), int(match[2])) for match in found if match]
