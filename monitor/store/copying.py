"""Moves all rows of an SQLite file to PostgreSQL, for a daemon that is stopped.

It can be run again after an interruption: rows that are there already are left out. In the end
every table must have as many rows as in the file.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions

from monitor.errors import MonitorError
from monitor.store import migrate, sequences
from monitor.store.escapes import Escapes, escapes_of
from monitor.store.interface import Connection, Store, TablesError
from monitor.store.partitions import create_partitions
from monitor.store.sqlite import SqliteConnection

__all__ = ["copy_file", "opened_alone"]

# In one transaction. A message alone may have a megabyte.
_ROWS = 5000
_BYTES = 8_388_608
_TIMEOUT_S = 600.0
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class _Table:
    """A table with its columns and their PostgreSQL types."""

    def __init__(self, name: str, types: Mapping[str, str]) -> None:
        self.name = name
        self.types = types
        self.columns = ", ".join(f'"{column}"' for column in types)


@contextlib.contextmanager
def opened_alone(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a file that nobody else uses, with the tables of this version, in a transaction.

    Raises MonitorError if it is in use, damaged, missing, another file, or of a newer program.
    """
    server = f"database {file}"
    if not file.is_file():
        raise MonitorError(f"{server}: there is no such file")
    raw = sqlite3.connect(file, timeout=1.0, isolation_level=None, check_same_thread=False)
    try:
        try:
            # Refused while another process has the file open, even with a write-ahead log.
            raw.execute("PRAGMA locking_mode = EXCLUSIVE")
            raw.execute("BEGIN EXCLUSIVE")
            # Nothing may be added to another file, such as the spool.
            ours = raw.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_migration'")
            if not ours.fetchall():
                raise MonitorError(f"{server}: it does not have the daemon's tables")
            migrate.apply(SqliteConnection(raw), server)
            raw.execute("COMMIT")
            raw.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise MonitorError(f"{server}: it is in use; stop the daemon first") from None
            raise
        yield raw
    except sqlite3.DatabaseError as error:
        raise MonitorError(f"{server}: {error}") from error
    finally:
        raw.close()


async def copy_file(
    source: sqlite3.Connection,
    target: Store,
    *,
    widths_s: Mapping[str, int],
    said: Callable[[str], None],
) -> None:
    """Copy all rows to ``target``, whose tables exist and are empty or from an earlier attempt.

    ``widths_s`` are the widths of new partitions by table. Blocks between transactions. Raises
    MonitorError, even if the counts differ in the end.
    """
    target.copying = True
    tables = await target.transaction(lambda connection: _begin(connection, source))
    for table in tables:
        with contextlib.closing(
            source.execute(f"SELECT {table.columns} FROM {table.name}")  # noqa: S608
        ) as rows:
            for chunk in _chunks(rows):

                def write(
                    connection: Connection,
                    table: _Table = table,
                    chunk: Sequence[tuple[Any, ...]] = chunk,
                ) -> None:
                    _write(connection, table, chunk, widths_s)

                await target.transaction(write, timeout=_TIMEOUT_S)
    wrong = []
    for table in tables:
        count = f"SELECT count(*) FROM {table.name}"  # noqa: S608 - our own tables
        ((wanted,),) = source.execute(count)
        ((found,),) = await target.read(lambda c, q=count: c.query(q), timeout=_TIMEOUT_S)  # type: ignore[misc]
        said(f"{table.name}: {found} rows")
        if found != wanted:
            wrong.append(f"{table.name} has {found} rows of {wanted}")
    if wrong:
        problem = f"the copy is not complete: {', '.join(wrong)}; is something else writing there?"
        raise MonitorError(f"{target.server}: {problem}")
    await target.transaction(_end)


def _chunks(rows: Iterable[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    chunk: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(chunk) >= _ROWS or size >= _BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _begin(connection: Connection, source: sqlite3.Connection) -> list[_Table]:
    """Mark the tables as being copied to, and return them."""
    names = [name for kind, name in migrate.created(migrate.load()) if kind == "TABLE"]
    tables = [_Table(name, _types(connection, name)) for name in names]
    for table in tables:
        have = {row[1] for row in source.execute(f"PRAGMA table_info({table.name})")}
        if have != set(table.types):
            raise TablesError(f"table {table.name}", "its columns differ from those of the file")
    if not migrate.is_partial(connection):
        filled = [t.name for t in tables if connection.query(f"SELECT 1 FROM {t.name} LIMIT 1")]  # noqa: S608
        if filled:
            raise TablesError(
                "the database", f"it has rows already, in {', '.join(filled)}; copy to an empty one"
            )
        connection.execute(f"COMMENT ON TABLE schema_migration IS '{migrate.COPYING}'")
    return tables


def _end(connection: Connection) -> None:
    sequences.advance(connection)
    connection.execute("COMMENT ON TABLE schema_migration IS NULL")


def _types(connection: Connection, table: str) -> dict[str, str]:
    return dict(
        connection.query(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (table,),
        )
    )


def _write(
    connection: Connection,
    table: _Table,
    rows: Sequence[tuple[Any, ...]],
    widths_s: Mapping[str, int],
) -> None:
    width_s = widths_s.get(table.name)
    if width_s is not None:
        column = "time" if "time" in table.types else "scheduled_at"
        place = list(table.types).index(column)
        for slot in sorted({row[place] // width_s for row in rows}):
            at = slot * width_s
            create_partitions(connection, table.name, since=at, until=at, width_s=width_s)
    staged = {
        column: "double precision" if kind.startswith("timestamp") else kind
        for column, kind in table.types.items()
    }
    columns = ", ".join(f'"{column}" {kind}' for column, kind in staged.items())
    values = ", ".join(
        f'to_timestamp("{column}")' if kind != staged[column] else f'"{column}"'
        for column, kind in table.types.items()
    )
    connection.execute(f"CREATE TEMP TABLE copied ({columns}) ON COMMIT DROP")
    kinds = list(table.types.values())
    escapes = itertools.repeat(escapes_of(connection.raw))
    lines = "".join("\t".join(map(_text, row, kinds, escapes)) + "\n" for row in rows)
    try:
        # Its own cursors would escape text and JSON alike.
        with connection.raw.cursor(cursor_factory=psycopg2.extensions.cursor) as cursor:
            cursor.copy_expert("COPY copied FROM STDIN", io.BytesIO(lines.encode()))
        connection.execute(
            f"INSERT INTO {table.name} ({table.columns}) OVERRIDING SYSTEM VALUE"  # noqa: S608
            f" SELECT {values} FROM copied ON CONFLICT DO NOTHING"
        )
    except psycopg2.DataError as error:
        raise TablesError(f"table {table.name}", _refused(error, table, rows)) from None


def _refused(error: psycopg2.DataError, table: _Table, rows: Sequence[tuple[Any, ...]]) -> str:
    """Return which row PostgreSQL refuses, and why."""
    found = re.search(r"^COPY copied, line (\d+)", error.diag.context or "", re.M)
    row = (
        f"the row whose {next(iter(table.types))} is {rows[int(found[1]) - 1][0]}"
        if found
        else "a row"
    )
    why = ": ".join(filter(None, (error.diag.message_primary, error.diag.message_detail)))
    return f"cannot copy {row}: {why}; change or delete it in the file, and run this again"


def _text(value: Any, kind: str, escapes: Escapes | None) -> str:
    if value is None:
        return "\\N"
    if kind == "boolean":
        return "t" if value else "f"
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    if not isinstance(value, str):
        return repr(value)
    text = value if escapes is None else escapes.stored(value, doubled=kind.startswith("json"))
    return text.translate(_ESCAPES)
