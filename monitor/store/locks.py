"""Who holds a lock on a table of ours, for the message about a transaction that waited too long."""

from __future__ import annotations

from monitor.store.interface import Connection

__all__ = ["holder"]

# The locks that writers wait for. The oldest transaction is the likely one.
_HOLDERS = """
SELECT c.relname, l.mode, l.pid, coalesce(nullif(a.application_name, ''), a.usename, '?')
FROM pg_locks l
JOIN pg_class c ON c.oid = l.relation
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND l.pid <> pg_backend_pid() AND c.relkind IN ('r', 'p')
AND c.relnamespace = current_schema()::regnamespace
AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
ORDER BY a.xact_start, c.relname LIMIT 1
"""


def holder(connection: Connection) -> str:
    """Return who holds a lock on a table, or an empty text."""
    for table, mode, process, program in connection.query(_HOLDERS):
        return f"process {process} of the server ({program}) holds {mode} on {table}"
    return ""
