"""Time partitions in PostgreSQL: made ahead, dropped whole.

A table is ``PARTITION BY RANGE`` on a ``double precision`` column of seconds since the
epoch. Its partitions are named ``TABLE_FROM_TO`` with both ends in whole seconds, so that
what is there can be read from the names, also after their width was changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from monitor.store.interface import Connection, Store

__all__ = ["Range", "create_partitions", "drop_partitions", "plan_partitions"]

Range = tuple[int, int]
"""Start (in) and end (out) of a partition, s since the epoch."""

_LOCK_TIMEOUT_MS = 1000  # queued behind a long query a DROP would hold up everyone else


def plan_partitions(
    existing: Iterable[Range], since: float, until: float, width_s: int
) -> list[Range]:
    """Return the partitions to add so that every instant from ``since`` to ``until`` has one.

    They lie on the grid of ``width_s`` and are cut where they would overlap existing ones.
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

    Readers and writers of other partitions go on meanwhile.
    """
    if not plan_partitions(_existing(connection, table), since, until, width_s):
        return []
    connection.query("SELECT pg_advisory_xact_lock(hashtext(current_schema() || %s))", (table,))
    missing = plan_partitions(_existing(connection, table), since, until, width_s)
    for low, high in missing:
        name = f'"{table}_{low}_{high}"'
        # ATTACH takes a lesser lock on the table than CREATE TABLE ... PARTITION OF does.
        connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)")
        connection.execute(
            f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({low}) TO ({high})"
        )
    return missing


async def drop_partitions(
    store: Store, table: str, *, before: float, lock_timeout_ms: int = _LOCK_TIMEOUT_MS
) -> list[Range]:
    """Drop the partitions that end at ``before`` or earlier, each in a transaction; return them.

    Raises UnavailableError when a long query keeps one of them: try again later. Whoever comes
    to the table meanwhile waits as well, for at most ``lock_timeout_ms``.
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
