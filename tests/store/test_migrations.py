"""Migrations: from every earlier version to the newest, with data in the tables."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from monitor.store import Connection, DatabaseSettings, TablesError, migrate, open_store
from monitor.store.migrations import Migration, load
from monitor.store.partitions import create_partitions
from tests.store.opened import opened
from tests.waiting import wait_for

STEPS = load()

# A value for each column type; times are in the partitions made below.
VALUES: dict[str, Any] = {
    "bigint": 7,
    "integer": 7,
    "double precision": 1.5,
    "real": 1.5,
    "text": '{"200": 1}',
    "jsonb": '{"200": 1}',
    "json": '{"200": 1}',
    "boolean": True,
    "bytea": b"\0\xff",
    "blob": b"\0\xff",
    "timestamp with time zone": "2026-01-01T00:00:00Z",
}


def tables(connection: Connection) -> dict[str, list[tuple[str, str]]]:
    """Return each table's columns with their types, apart from partitions."""
    if connection.dialect == "postgresql":
        rows = connection.query(
            "SELECT c.relname, a.attname, format_type(a.atttypid, NULL), a.attidentity"
            " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')"
            " AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped"
            " ORDER BY c.relname, a.attnum"
        )
    else:
        rows = [
            (table, column, kind, "")
            for (table,) in connection.query(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
                " ORDER BY name"
            )
            for _, column, kind, *_ in connection.query(f"PRAGMA table_info({table})")
        ]
    found: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind, identity in rows:
        if table != "schema_migration":
            found.setdefault(table, [])
            if identity != "a":  # always generated
                found[table].append((column, kind.lower()))
    return found


def fill(connection: Connection) -> None:
    """Put a row into each table."""
    if connection.dialect == "postgresql":
        partitioned = connection.query(
            "SELECT relname FROM pg_class WHERE relkind = 'p' AND NOT relispartition"
            " AND relnamespace = current_schema()::regnamespace"
        )
        for (table,) in partitioned:
            create_partitions(connection, table, since=0, until=10, width_s=100)
    for table, columns in tables(connection).items():
        row = [VALUES[kind] for _, kind in columns]
        connection.insert(table, [f'"{name}"' for name, _ in columns], [row])


def content(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Return all rows by column name, so that later columns do not matter."""
    found = {}
    for table, columns in tables(connection).items():
        names = [name for name, _ in columns]
        quoted = ", ".join(f'"{name}"' for name in names)
        rows = connection.query(f"SELECT {quoted} FROM {table}")
        found[table] = [dict(zip(names, map(_comparable, row), strict=True)) for row in rows]
    return found


def _comparable(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


@pytest.mark.parametrize("count", range(1, len(STEPS) + 1))
async def test_every_earlier_version_is_upgraded_with_its_data(
    database: DatabaseSettings, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "load", lambda: STEPS[:count])
    async with opened(database) as store:
        await store.transaction(fill)
        before = await store.read(content)
        assert all(len(rows) == 1 for rows in before.values())
    monkeypatch.setattr(migrate, "load", lambda: STEPS)
    upgraded = open_store(database)
    try:
        assert await upgraded.migrate() == [str(step) for step in STEPS[count:]]
        after = await upgraded.read(content)
        for table, rows in before.items():
            assert [{key: row[key] for key in rows[0]} for row in after[table]] == rows
        assert await upgraded.migrate() == []
    finally:
        await upgraded.close()


async def test_a_program_refuses_the_tables_of_a_newer_one(
    database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database):
        pass
    monkeypatch.setattr(migrate, "load", lambda: STEPS[:-1])
    older = open_store(database)
    try:
        with pytest.raises(TablesError, match="newer than this program"):
            await older.migrate()
        with pytest.raises(TablesError, match="newer than this program"):
            await older.transaction(lambda connection: None)
    finally:
        await older.close()


@pytest.mark.integration_test
async def test_old_tables_name_what_is_missing_and_the_command(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DatabaseSettings(url=postgres_url)
    monkeypatch.setattr(migrate, "load", lambda: STEPS[:1])
    async with opened(settings) as store:
        await store.transaction(lambda connection: None)
        monkeypatch.setattr(migrate, "load", lambda: STEPS)
        newer = open_store(settings)
        try:
            with pytest.raises(TablesError, match=r"\(missing: 0002 \w+, .*\); run: .*-c FILE"):
                await newer.read(lambda connection: None)
            await newer.migrate()
            await newer.read(lambda connection: None)
        finally:
            await newer.close()


async def test_a_step_that_fails_leaves_nothing_behind(
    database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = "CREATE TABLE half (a integer);\nSELECT nonsense;\n"
    broken = Migration(9000, "broken", {"postgresql": sql, "sqlite": sql})

    async with opened(database) as store:
        before = await store.read(tables)
    monkeypatch.setattr(migrate, "load", lambda: [*STEPS, broken])
    failing = open_store(database)
    try:
        with pytest.raises(TablesError, match="nonsense"):
            await failing.migrate()
    finally:
        await failing.close()
    monkeypatch.setattr(migrate, "load", lambda: STEPS)
    async with opened(database) as store:
        assert await store.read(tables) == before


@pytest.mark.integration_test
async def test_a_deadlock_with_others_does_not_keep_the_tables_from_being_made_anew(
    postgres_url: str,
) -> None:
    async with opened(DatabaseSettings(url=postgres_url)) as store:
        await store.migrate()
        ((schema,),) = await store.read(lambda found: found.query("SELECT current_schema()"))
        with contextlib.closing(psycopg2.connect(postgres_url)) as other:
            cursor = other.cursor()
            # It is the store's that finds the deadlock.
            cursor.execute(f"SET deadlock_timeout = '5s'; SET search_path TO {schema}")
            # Dropped last.
            cursor.execute("LOCK TABLE schema_migration IN SHARE MODE")

            def waits() -> bool:
                cursor.execute(
                    "SELECT count(*) FROM pg_locks WHERE NOT granted"
                    " AND relation = 'schema_migration'::regclass"
                )
                return cursor.fetchone() != (0,)

            def cross() -> None:
                wait_for(waits, "the store to wait for the lock")
                cursor.execute("LOCK TABLE log_entry IN ACCESS SHARE MODE")
                other.commit()

            resetting = asyncio.create_task(store.reset())
            await asyncio.to_thread(cross)
            await resetting


@pytest.mark.integration_test
async def test_both_databases_have_the_same_tables_and_columns(
    tmp_path: Path, postgres_url: str
) -> None:
    async def names(settings: DatabaseSettings) -> dict[str, list[str]]:
        async with opened(settings) as store:
            found = await store.read(tables)
            return {table: [name for name, _ in columns] for table, columns in found.items()}

    sqlite = await names(DatabaseSettings(file=str(tmp_path / "monitor.db")))
    postgresql = await names(DatabaseSettings(url=postgres_url))
    assert sqlite.keys() == postgresql.keys()
    for table, columns in postgresql.items():
        # A column that PostgreSQL alone generates was left out above.
        assert set(columns) <= set(sqlite[table])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("1_x.sql", ""),
        ("0001_x.sql", "-- dialect: sqlite\n"),
        ("0001_x.sql", "-- dialect: sqlite\n-- dialect: mysql\n"),
    ],
)
def test_a_file_that_is_no_migration_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"migration|section"):
        Migration.parse(name, text)
