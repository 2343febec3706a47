"""Removes for good what is older than the window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from monitor.logs.tables import partition_width_s
from monitor.store import Connection, Store
from monitor.store.partitions import create_partitions, drop_partitions
from monitor.store.purge import delete_in_steps, give_pages_back

__all__ = ["KEEP_UPLOAD_IDS_S", "make_partitions", "purge"]

KEEP_UPLOAD_IDS_S: Final = 3600.0
"""How long a repeated upload is at least known for one."""

_AHEAD: Final = 2  # partitions made before they are needed


async def make_partitions(store: Store, *, now: float, timewindow: float) -> None:
    """Make the partitions that will be written next, so that no upload has to."""
    if store.dialect != "postgresql":
        return
    width_s = partition_width_s(timewindow)

    def make(connection: Connection) -> None:
        create_partitions(
            connection, "log_entry", since=now, until=now + _AHEAD * width_s, width_s=width_s
        )

    await store.transaction(make)


async def purge(
    store: Store, *, now: float, timewindow: float, keep_notifications: float | None
) -> int:
    """Delete what is too old, in steps that hold up nobody; return how many log entries went.

    In PostgreSQL whole partitions are dropped, of which the server's statistics tell how many
    rows they had, and only the expired head of the oldest one left is deleted.
    """
    oldest = now - timewindow
    purged = 0
    if store.dialect == "postgresql":
        rows = await store.read(_rows_of_partitions)
        dropped = await drop_partitions(store, "log_entry", before=oldest)
        purged = sum(rows.get(f"log_entry_{low}_{high}", 0) for low, high in dropped)
    purged += await delete_in_steps(store, _older("log_entry", "time", oldest))
    keep_uploads = max(timewindow, KEEP_UPLOAD_IDS_S)
    await delete_in_steps(store, _uploads(now - keep_uploads))
    if keep_notifications is not None:
        await delete_in_steps(store, _older("notification", "time", now - keep_notifications))
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


def _older(table: str, column: str, before: float) -> Callable[[Connection, int], int]:
    """Return a step that deletes rows of ``table`` before an instant, the oldest first."""

    def delete(connection: Connection, limit: int) -> int:
        if connection.dialect == "postgresql":
            # Another instance may be at the same rows: each takes those that are free.
            return connection.execute(
                f"WITH old AS (SELECT {column}, id FROM {table} WHERE {column} < %s"  # noqa: S608 - the names are ours
                f" ORDER BY {column} LIMIT %s FOR UPDATE SKIP LOCKED)"
                f" DELETE FROM {table} USING old WHERE {table}.{column} = old.{column}"
                f" AND {table}.id = old.id AND {table}.{column} < %s",
                (before, limit, before),
            )
        return connection.execute(
            f"DELETE FROM {table} WHERE id IN"  # noqa: S608 - the names are ours
            f" (SELECT id FROM {table} WHERE {column} < %s ORDER BY {column} LIMIT %s)",
            (before, limit),
        )

    return delete


def _uploads(before: float) -> Callable[[Connection, int], int]:
    def delete(connection: Connection, limit: int) -> int:
        return connection.execute(
            "DELETE FROM log_upload WHERE (sender, upload_id, kind) IN"
            " (SELECT sender, upload_id, kind FROM log_upload WHERE received_at < %s LIMIT %s)",
            (before, limit),
        )

    return delete
