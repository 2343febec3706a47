"""docs/reference/tables.md has the tables that there are, with their columns and types."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import pytest_asyncio

from monitor.store import DatabaseSettings
from tests.docs.book import text_of
from tests.servers.postgres import PostgresServer
from tests.store.opened import opened

pytestmark = pytest.mark.integration_test

PAGE = text_of("docs/reference/tables.md")
COLUMNS = """
    SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns c
    JOIN pg_class k ON k.relname = c.table_name AND NOT k.relispartition
    WHERE c.table_schema = 'website_availability' AND k.relkind IN ('r', 'p')
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(postgres_server: PostgresServer) -> dict[str, dict[str, str]]:
    """Return the columns of each table with their types, as PostgreSQL has them."""
    name = postgres_server.create_database()
    async with opened(DatabaseSettings(url=postgres_server.url(name))):
        pass
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in postgres_server.execute(COLUMNS, database=name):
        found.setdefault(table, {})[column] = kind.replace("double precision", "double")
    return found


def told() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each table of the page with its columns, and their types where it has them."""
    for table, columns in re.findall(r"^`(\w+)` \(([\w, \n]+)\)", PAGE, re.M):
        yield table, dict.fromkeys(re.split(r",\s+", columns), "")
    for table, rows in re.findall(
        r"^`(\w+)`[:,][^|]*?\n\n\| column \| type \| what \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M
    ):
        columns = {}
        for row in rows.splitlines():
            names, kind = (cell.strip() for cell in row.split("|")[1:3])
            kind = re.split(r"[,(]", kind)[0].strip()
            columns.update(dict.fromkeys(names.split(", "), kind))
        yield table, columns


def test_every_table_is_there_with_its_columns(live: dict[str, dict[str, str]]) -> None:
    assert {table: set(columns) for table, columns in told()} == {
        table: set(columns) for table, columns in live.items()
    }


def test_the_types_are_right(live: dict[str, dict[str, str]]) -> None:
    wrong = [
        (table, column, kind, live[table][column])
        for table, columns in told()
        for column, kind in columns.items()
        if kind and kind != live[table][column]
    ]
    assert wrong == []
