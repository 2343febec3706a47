"""Sequences of PostgreSQL that are behind their tables, as after a logical switch-over.

Logical replication copies rows and not the values of sequences, so that the new primary would
number its rows from 1 again (https://www.postgresql.org/docs/current/logical-replication-restrictions.html).
"""

from __future__ import annotations

import contextlib

import psycopg2

from monitor.store.interface import Connection

__all__ = ["advance", "advance_if_possible"]

# The columns of this schema that a sequence numbers.
_OWNED = """
SELECT s.relname, t.relname, a.attname
FROM pg_class s
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.refobjsubid > 0
AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
JOIN pg_class t ON t.oid = d.refobjid
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
WHERE s.relkind = 'S' AND s.relnamespace = current_schema()::regnamespace
"""
_VALUES = """
SELECT sequencename, coalesce(last_value, 0) FROM pg_sequences WHERE schemaname = current_schema()
"""
# This one numbers blocks of ids; see the migration that creates it.
_WIDTHS = {"log_entry_block": 65536}
# For a table that somebody locks.
_PATIENCE_MS = 200


def advance_if_possible(connection: Connection) -> None:
    """Do as :func:`advance`, if all tables and sequences can be read and changed.

    Otherwise nothing happens: whose transaction it is may need none of them. Who does need a
    sequence that is behind collides with a row.
    """
    connection.execute(f"SAVEPOINT sequences; SET LOCAL lock_timeout = {_PATIENCE_MS}")
    with contextlib.suppress(psycopg2.Error):
        advance(connection)
    # Sequences keep their values. What was locked and set is as before.
    connection.execute("ROLLBACK TO sequences")


def advance(connection: Connection) -> list[str]:
    """Set the sequences that are behind to where their tables are; return their names.

    In the caller's transaction, although a sequence keeps its value when that rolls back.
    """
    if not _behind(connection):
        return []
    connection.query(
        "SELECT pg_advisory_xact_lock(hashtext('recodex-monitor sequences ' || current_schema()))"
    )
    found = _behind(connection)
    for sequence, last in found.items():
        connection.query("SELECT setval(%s, %s)", (f'"{sequence}"', last))
    return sorted(found)


def _behind(connection: Connection) -> dict[str, int]:
    lasts = {}
    for sequence, table, column in connection.query(_OWNED):
        ((last,),) = connection.query(f'SELECT max("{column}") FROM "{table}"')  # noqa: S608
        lasts[sequence] = (last or 0) // _WIDTHS.get(sequence, 1)
    # Only now: others insert meanwhile, and the row that is last later may have a higher number
    # than the sequence had before. Then the sequence would be set back.
    values: dict[str, int] = dict(connection.query(_VALUES))
    return {sequence: last for sequence, last in lasts.items() if last > values.get(sequence, last)}
