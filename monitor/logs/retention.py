"""Deletes entries that are older than the window."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from monitor.errors import UnavailableError
from monitor.logs.tables import partition_width_s
from monitor.store import Connection, Store
from monitor.store.partitions import create_partitions, drop_partitions
from monitor.store.purge import delete_in_steps, give_pages_back

__all__ = ["KEEP_UPLOAD_IDS_S", "make_partitions", "purge"]

KEEP_UPLOAD_IDS_S: Final = 3600.0
"""How long a repeated upload is recognized, at least."""

_HEAD_ROWS: Final = 20_000
# A purge that waits for a query blocks uploads for this long.
_LOCK_TIMEOUT_MS: Final = 50
_AHEAD: Final = 2  # partitions to create in advance


async def make_partitions(store: Store, *, now: float, timewindow: float) -> None:
    """Create the next partitions, so that no upload has to."""
    if store.dialect != "postgresql":
        return
    width_s = partition_width_s(timewindow)

    def make(connection: Connection) -> None:
        create_partitions(
            connection, "log_entry", since=now, until=now + _AHEAD * width_s, width_s=width_s
        )

    await store.transaction(make)


async def purge(
    store: Store,
    *,
    now: float,
    timewindow: float,
    keep_notifications: float | None,
    ahead_s: Callable[[float], float] = lambda kept_s: 0.0,
) -> int:
    """Delete old entries in steps that block nobody; return the number of deleted log entries.

    ``ahead_s`` gets a number of s and returns by how many s the clock jumped ahead in that time.
    Entries that are too old only because of such a jump are kept.

    In PostgreSQL whole partitions are dropped, whose number of rows is an estimate of the server.
    Rows are only deleted from the oldest remaining partition.
    """

    def oldest_kept(kept_s: float) -> float:
        return now - kept_s - ahead_s(kept_s)

    oldest = oldest_kept(timewindow)
    purged = 0
    if store.dialect == "postgresql":
        rows = await store.read(_rows_of_partitions)
        # A long query locks its partition: then its rows are deleted instead.
        with contextlib.suppress(UnavailableError):
            dropped = await drop_partitions(
                store, "log_entry", before=oldest, lock_timeout_ms=_LOCK_TIMEOUT_MS
            )
            purged = sum(rows.get(f"log_entry_{low}_{high}", 0) for low, high in dropped)
    purged += await _delete_older(store, "log_entry", oldest)
    await delete_in_steps(store, _uploads(oldest_kept(max(timewindow, KEEP_UPLOAD_IDS_S))))
    if keep_notifications is not None:
        await _delete_older(store, "notification", oldest_kept(keep_notifications))
    await give_pages_back(store)
    return purged


def _rows_of_partitions(connection: Connection) -> dict[str, int]:
    return {
        name: int(count)
        for name, count in connection.query(
            "SELECT relname, n_live_tup FROM pg_stat_user_tables"
            " WHERE schemaname = current_schema() AND relname LIKE %s",
            (r"log\_entry\_%",),
        )
    }


async def _delete_older(store: Store, table: str, before: float) -> int:
    """Delete the rows of ``table`` with a time before ``before``, oldest first."""
    if store.dialect == "sqlite":
        # A step blocks all other writers, so steps are small.
        return await delete_in_steps(
            store,
            lambda connection, limit: connection.execute(
                f"DELETE FROM {table} WHERE id IN"  # noqa: S608 - the names are ours
                f" (SELECT id FROM {table} WHERE time < %s ORDER BY time LIMIT %s)",
                (before, limit),
            ),
        )

    # A large step is fine in PostgreSQL, where a DELETE does not block uploads. A constant range of
    # time lets the planner choose one partition. The range includes the edge, so that it makes
    # progress even if many rows have the same time.
    def delete(connection: Connection) -> int:
        edge = connection.query(
            f"SELECT time FROM {table} WHERE time < %s ORDER BY time OFFSET %s LIMIT 1",  # noqa: S608
            (before, _HEAD_ROWS),
        )
        range_, end = ("time <= %s", edge[0][0]) if edge else ("time < %s", before)
        return connection.execute(f"DELETE FROM {table} WHERE {range_}", (end,))  # noqa: S608

    total = 0
    while deleted := await store.transaction(delete):
        total += deleted
    return total


def _uploads(before: float) -> Callable[[Connection, int], int]:
    def delete(connection: Connection, limit: int) -> int:
        return connection.execute(
            "DELETE FROM log_upload WHERE (sender, upload_id, kind) IN"
            " (SELECT sender, upload_id, kind FROM log_upload WHERE received_at < %s LIMIT %s)",
            (before, limit),
        )

    return delete
