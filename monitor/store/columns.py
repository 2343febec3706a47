"""Columns of our tables in PostgreSQL that somebody else gave another type.

A driver returns the values of another type as other objects, and comparisons with them mean
something else. So a session looks at the types, and refuses statements on such a table.
"""

from __future__ import annotations

import re
import time
from functools import cache
from typing import Any, ClassVar

import psycopg2.extensions

from monitor.store import migrate
from monitor.store.interface import TablesError

__all__ = ["Columns"]

# How long a session relies on what it saw. Ten looks at the mark a second take 0.5 % of a core.
_FRESH_S = 0.1
# After an error it looks again, but not for each of a thousand.
_AGAIN_S = 0.05
# Types that give the same objects, with as many digits. They may be too narrow for a value, which
# the server then says.
_ALIKE = {
    "bigint": {"integer", "smallint"},
    "integer": {"bigint", "smallint"},
    "text": {"character varying"},
}
# Of a domain the type below it counts, which is what the driver sees.
_TYPES = """
    SELECT c.oid, c.relname, a.attname,
        format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END, -1),
        format_type(a.atttypid, a.atttypmod)
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
        AND NOT c.relispartition AND a.attnum > 0
"""
# Changes with the name or a column of one of these tables; costs a fifth of all types.
_MARK = """
    SELECT sum(hashtext(attname::text)::bigint * atttypid::bigint + atttypmod),
        (SELECT sum(hashtext(relname::text)) FROM pg_class
         WHERE oid = ANY({tables}) AND relnamespace = current_schema()::regnamespace)
    FROM pg_attribute WHERE attrelid = ANY({tables}) AND attnum > 0
"""


class Columns:
    """What a session knows of the types; used in one thread."""

    def __init__(self, raw: psycopg2.extensions.connection) -> None:
        self._raw = raw
        self._looked_at = 0.0
        self._tables: list[int] = []
        """Our tables by number, in the prepared statement."""
        self._mark: object = None
        """That of what was seen; None if it has to be looked at again."""
        self._unusable: dict[str, str] = {}
        """By table, the first column whose type this program cannot use."""
        self._other: list[str] = []
        """Columns of other types than ours, these and those that work for most values."""
        raw.cursor_factory = type("_Cursor", (_Cursor,), {"unusable": self._unusable})

    def look(self) -> None:
        """Look at the types, unless that was done just now."""
        if time.monotonic() < self._looked_at + _FRESH_S:
            return
        if self._mark is None or self._mark_now() != self._mark:
            self._look()
        self._looked_at = time.monotonic()

    def explain(self, error: Exception) -> TablesError | None:
        """Return what an error of a transaction came from, if that is a changed column.

        To be called after the transaction was rolled back.
        """
        known = dict(self._unusable)
        if time.monotonic() < self._looked_at + _AGAIN_S:
            self._looked_at = 0.0
        else:
            self._look()
        for table, problem in self._unusable.items():
            if known.get(table) != problem:
                return _error(table, problem)
        if self._other and isinstance(error, psycopg2.DataError):
            said = str(error).partition("\n")[0]
            return TablesError("the tables", f"{said}; changed: {', '.join(self._other)}{_MEND}")
        return None

    def _look(self) -> None:
        # Before the types: what changes in between changes the next mark.
        self._mark = self._mark_now() if self._tables else None
        with self._raw.cursor() as cursor:
            cursor.execute(_TYPES)
            rows = cursor.fetchall()
        self._watch(sorted({row[0] for row in rows}))
        self._looked_at = time.monotonic()
        self._unusable.clear()
        self._other.clear()
        expected = _expected()
        for _, table, column, base, full in rows:
            wanted = expected.get((table, column))
            if wanted is None or full == wanted:
                continue
            problem = f"{column} is {full}, not {wanted}"
            self._other.append(f"{table}.{problem}")
            if base != wanted and base not in _ALIKE.get(wanted, ()):
                self._unusable.setdefault(table, problem)

    def _watch(self, tables: list[int]) -> None:
        """Prepare the mark of these tables: planning it takes longer than the rest."""
        if tables == self._tables:
            return
        mark = _MARK.format(tables=f"'{{{','.join(map(str, tables))}}}'::oid[]")
        with self._raw.cursor() as cursor:
            if self._tables:
                cursor.execute("DEALLOCATE recodex_monitor_mark")
            if tables:
                cursor.execute(f"PREPARE recodex_monitor_mark AS {mark}")
        self._tables, self._mark = tables, None

    def _mark_now(self) -> object:
        with self._raw.cursor() as cursor:
            cursor.execute("EXECUTE recodex_monitor_mark")
            return cursor.fetchone()


_MEND = "; change the type back; nothing is lost"


def _error(table: str, problem: str) -> TablesError:
    return TablesError(f"table {table}", f"the column {problem}{_MEND}")


@cache
def _expected() -> dict[tuple[str, str], str]:
    return migrate.columns(migrate.load())


class _Cursor(psycopg2.extensions.cursor):
    """Refuses statements on tables with an unusable column."""

    unusable: ClassVar[dict[str, str]]

    def execute(self, query: Any, vars: Any = None) -> None:
        self._require(query)
        super().execute(query, vars)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        self._require(sql)
        super().copy_expert(sql, file, size)

    def _require(self, sql: str | bytes) -> None:
        if not self.unusable:
            return
        text = sql.decode(errors="replace") if isinstance(sql, bytes) else sql
        for table, problem in self.unusable.items():
            if re.search(rf"\b{table}\b", text):
                raise _error(table, problem)
