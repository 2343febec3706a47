"""Creates and upgrades the tables in numbered steps.

This is not a library because a daemon that migrates its file at start must not leave a lock
behind after a kill -9, and because the caller chooses connection, schema and role.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from monitor.store.earlier_tables import set_aside
from monitor.store.interface import Connection, TablesError
from monitor.store.migrations import Migration, load

__all__ = [
    "COPYING",
    "Difference",
    "apply",
    "check",
    "columns",
    "compare",
    "created",
    "is_partial",
    "load",
    "reset",
]

COMMAND = "recodex-monitor configure-database -c FILE"

COPYING = "a copy from SQLite is not complete"
"""The comment of PostgreSQL's tables to which rows are being copied."""

_TABLE = """CREATE TABLE IF NOT EXISTS schema_migration (
    number integer PRIMARY KEY, name text NOT NULL, applied_at double precision NOT NULL)"""


_CREATED = re.compile(r"^CREATE (TABLE|FUNCTION) (\w+)", re.MULTILINE)
_TYPE = r"(bigint|boolean|bytea|double precision|integer|jsonb|text|timestamp with time zone)\b"
_NEW_TABLE = re.compile(r"^CREATE TABLE (\w+) \((.*?)^\)", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(rf'^ +"?(\w+)"? {_TYPE}', re.MULTILINE)
_NEW_COLUMN = re.compile(rf"^ALTER TABLE (\w+) ADD COLUMN (\w+) {_TYPE}", re.MULTILINE)


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
        set_aside(connection, server)
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


def is_partial(connection: Connection) -> bool:
    """Return whether a copy to the tables in PostgreSQL was begun and is not complete."""
    return connection.query("SELECT obj_description('schema_migration'::regclass, 'pg_class')") == [
        (COPYING,)
    ]


def check(connection: Connection, server: str, *, partial: bool = False) -> None:
    """Raise TablesError unless the tables are exactly what this program needs.

    With ``partial`` a copy to them need not be complete.
    """
    if not _has_tables(connection):
        raise TablesError(server, f"has no tables; run: {COMMAND}")
    difference = compare(load(), _applied(connection))
    if difference.unknown:
        raise TablesError(server, _newer(difference.unknown))
    if difference.missing:
        names = ", ".join(str(step) for step in difference.missing)
        raise TablesError(server, f"the tables are outdated (missing: {names}); run: {COMMAND}")
    if connection.dialect == "postgresql" and not partial and is_partial(connection):
        raise TablesError(server, f"{COPYING}; run: {COMMAND} --copy-from FILE")


def reset(connection: Connection, server: str) -> None:
    """Drop the tables and functions that the steps created, by name, and create them again.

    Raises TablesError for tables of a newer program, whose names are not known here.
    """
    steps = load()
    if _has_tables(connection) and (unknown := compare(steps, _applied(connection)).unknown):
        raise TablesError(server, _newer(unknown))
    for kind, name in reversed([("TABLE", "schema_migration"), *created(steps)]):
        if connection.dialect == "postgresql" or kind == "TABLE":
            connection.execute(f"DROP {kind} IF EXISTS {name}")
    apply(connection, server)


def created(steps: Iterable[Migration]) -> list[tuple[str, str]]:
    """Return what the steps create, in order: ``TABLE`` or ``FUNCTION``, and its name."""
    found = (_CREATED.findall(section) for step in steps for section in step.sections.values())
    return list(dict.fromkeys(pair for pairs in found for pair in pairs))


def columns(steps: Iterable[Migration]) -> dict[tuple[str, str], str]:
    """Return the types of the columns in PostgreSQL, by table and column."""
    found = {}
    for step in steps:
        section = step.sections["postgresql"]
        for table, body in _NEW_TABLE.findall(section):
            found.update({(table, name): kind for name, kind in _COLUMN.findall(body)})
        found.update({(table, name): kind for table, name, kind in _NEW_COLUMN.findall(section)})
    return found


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
