"""Creates and upgrades the tables in numbered steps.

This is not a library because a daemon that migrates its file at start must not leave a lock
behind after a kill -9, and because the caller chooses connection, schema and role.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from monitor.store.interface import Connection, TablesError
from monitor.store.migrations import Migration, load

__all__ = ["Difference", "apply", "check", "compare", "reset"]

COMMAND = "recodex-monitor configure-database -c FILE"

_TABLE = """CREATE TABLE IF NOT EXISTS schema_migration (
    number integer PRIMARY KEY, name text NOT NULL, applied_at double precision NOT NULL)"""


class Difference(NamedTuple):
    """The difference between the tables and what this program needs."""

    missing: list[Migration]
    unknown: list[int]
    """The numbers of the steps that a newer program has applied."""


def compare(steps: Sequence[Migration], applied: Iterable[int]) -> Difference:
    """Compare the ``steps`` of this program with the numbers of the applied ones."""
    numbers = set(applied)
    return Difference(
        [step for step in steps if step.number not in numbers],
        sorted(numbers - {step.number for step in steps}),
    )


def apply(
    connection: Connection, server: str, steps: Sequence[Migration] | None = None
) -> list[str]:
    """Apply the missing steps in the caller's transaction and return their names.

    Concurrent calls wait for each other. Raises TablesError for tables of a newer program.
    """
    if connection.dialect == "postgresql":
        connection.query(
            "SELECT pg_advisory_xact_lock(hashtext('recodex-monitor ' || current_schema()))"
        )
    if not _has_tables(connection):
        connection.execute(_TABLE)
    difference = compare(load() if steps is None else steps, _applied(connection))
    if difference.unknown:
        raise TablesError(server, _newer(difference.unknown))
    for step in difference.missing:
        for statement in step.statements(connection.dialect):
            connection.execute(statement)
        connection.insert(
            "schema_migration",
            ("number", "name", "applied_at"),
            [(step.number, step.name, time.time())],
        )
    return [str(step) for step in difference.missing]


def check(connection: Connection, server: str) -> None:
    """Raise TablesError unless the tables are exactly what this program needs."""
    if not _has_tables(connection):
        raise TablesError(server, f"has no tables; run: {COMMAND}")
    difference = compare(load(), _applied(connection))
    if difference.unknown:
        raise TablesError(server, _newer(difference.unknown))
    if difference.missing:
        names = ", ".join(str(step) for step in difference.missing)
        raise TablesError(server, f"the tables are outdated (missing: {names}); run: {COMMAND}")


def reset(connection: Connection) -> None:
    """Drop everything in the schema and create the tables again."""
    if connection.dialect == "postgresql":
        tables = connection.query(
            "SELECT quote_ident(c.relname) FROM pg_class c"
            " WHERE c.relnamespace = current_schema()::regnamespace"
            " AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        )
        functions = connection.query(
            "SELECT p.oid::regprocedure::text FROM pg_proc p"
            " WHERE p.pronamespace = current_schema()::regnamespace"
        )
        for (name,) in tables:
            connection.execute(f"DROP TABLE {name} CASCADE")
        for (name,) in functions:
            connection.execute(f"DROP FUNCTION IF EXISTS {name} CASCADE")
    else:
        tables = connection.query(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        for (name,) in tables:
            connection.execute(f'DROP TABLE IF EXISTS "{name}"')
    apply(connection, "database")


def _has_tables(connection: Connection) -> bool:
    if connection.dialect == "postgresql":
        found = connection.query(
            "SELECT 1 FROM pg_class WHERE relname = 'schema_migration'"
            " AND relnamespace = current_schema()::regnamespace"
        )
    else:
        found = connection.query("SELECT 1 FROM sqlite_master WHERE name = 'schema_migration'")
    return bool(found)


def _applied(connection: Connection) -> list[int]:
    return [number for (number,) in connection.query("SELECT number FROM schema_migration")]


def _newer(unknown: Sequence[int]) -> str:
    numbers = ", ".join(f"{number:04}" for number in unknown)
    return f"the tables are newer than this program (unknown: {numbers}); upgrade the program"
