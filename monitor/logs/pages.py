"""The SQL of queries: a page of log entries or notifications, newest first; both databases."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from monitor.logs.entries import Entry
from monitor.logs.filters import Cursor, Filter, Kind, Query, folded
from monitor.store import Connection

__all__ = ["TABLES", "Placed", "halves", "matching", "page", "read"]

# Different letters of a text beyond ASCII whose case is ignored: each costs a pass over a message.
_MOST_LETTERS: Final = 50

TABLES: Final = {Kind.LOGS: "log_entry", Kind.NOTIFICATIONS: "notification"}


class Placed(NamedTuple):
    """An entry, and the cursor of what follows it."""

    entry: Entry
    cursor: Cursor


def page(
    connection: Connection, query: Query, *, oldest: float | None, max_bytes: int
) -> tuple[list[Entry], Cursor | None]:
    """Return the entries of a query, newest first, and the cursor of older ones.

    None is older than ``oldest``. Their messages have at most ``max_bytes`` bytes, unless there is
    only one.
    """
    newer: list[Placed] = []
    if query.around is not None:
        query, after = halves(query)
        max_bytes //= 2
        newer, _ = read(connection, after, oldest=oldest, max_bytes=max_bytes, newer=True)
    older, more = read(connection, query, oldest=oldest, max_bytes=max_bytes)
    entries = [each.entry for each in (*reversed(newer), *older)]
    return entries, older[-1].cursor if more else None


def halves(query: Query) -> tuple[Query, Query]:
    """Return the queries for what is before (and at) ``query.around``, and for what is after it."""
    assert query.around is not None
    until = math.nextafter(query.around, math.inf)
    half = query.limit // 2
    return (
        dataclasses.replace(query, until=until, limit=max(1, half), around=None),
        dataclasses.replace(query, limit=half),
    )


def read(
    connection: Connection,
    query: Query,
    *,
    oldest: float | None,
    max_bytes: int,
    newer: bool = False,
) -> tuple[list[Placed], bool]:
    """Return entries from the newest on, none older than ``oldest``, and whether there are more.

    With ``newer`` they are those after ``query.around``, from the oldest on. Their messages have at
    most ``max_bytes`` bytes, unless there is only one.
    """
    conditions, values = matching(connection, query.filter, oldest=oldest)
    beyond, order = (">", "") if newer else ("<", "DESC")
    limit = query.around if newer else query.until
    if limit is not None:
        conditions.append(f"time {beyond} %s")
        values.append(limit)
    if query.cursor is not None:
        # The first condition lets PostgreSQL skip partitions.
        conditions.append(f"time {beyond}= %s AND (time, id) {beyond} (%s, %s)")
        values.extend((query.cursor.time, *query.cursor))
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    next_ = (
        f"SELECT level, time, sender, message, id FROM {TABLES[query.kind]} {where}"  # noqa: S608 - no user input
        f" ORDER BY time {order}, id {order} LIMIT %s"
    )
    values.append(query.limit + 1)
    found: list[Placed] = []
    for level, time, sender, message, number, size in _sized(
        connection, next_, values, max_bytes, order
    ):
        if len(found) == query.limit or (found and size > max_bytes):
            return found, True
        found.append(Placed(Entry(level, time, sender, message), Cursor(time, number)))
    return found, False


def matching(
    connection: Connection, filter_: Filter, *, oldest: float | None
) -> tuple[list[str], list[Any]]:
    """Return conditions for what matches and is not older than ``oldest``, and their values.

    The filter has no ``regexp``: no database looks for one in bounded time.
    """
    assert filter_.regexp is None
    conditions: list[str] = []
    values: list[Any] = []
    if oldest is not None:
        conditions.append("time >= %s")
        values.append(oldest)
    if filter_.sender is not None:
        conditions.append("sender = %s")
        values.append(filter_.sender)
    levels = filter_.levels
    if levels is not None:
        places = ", ".join(["%s"] * len(levels))
        conditions.append(f"level IN ({places})" if levels else "1 = 0")
        values.extend(sorted(levels))
    if filter_.contains:
        condition, needles = _contains(connection, filter_.contains)
        conditions.append(condition)
        values.extend(needles)
    for text in filter_.excludes:
        condition, needles = _contains(connection, text)
        conditions.append(f"NOT ({condition})")
        values.extend(needles)
    return conditions, values


def _sized(
    connection: Connection, newest: str, values: Sequence[Any], max_bytes: int, order: str
) -> Iterable[Sequence[Any]]:
    """Yield rows, each with the total size of the messages up to and including its own.

    At most one row more than fits into ``max_bytes`` is loaded.
    """
    if connection.dialect == "postgresql":
        # An index scan from the newest entry on is always right here. Without statistics of a
        # partition PostgreSQL might sort all matching rows instead.
        settings = "SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off; "
        sized = (
            "SELECT *, sum(octet_length(message)) OVER newest AS size, row_number() OVER newest"  # noqa: S608 - as above
            f" AS place FROM ({newest}) AS entry"
            f" WINDOW newest AS (ORDER BY time {order}, id {order} ROWS UNBOUNDED PRECEDING)"
        )
        yield from connection.query(
            f"{settings}SELECT level, time, sender, message, id, size FROM ({sized}) AS sized"  # noqa: S608
            " WHERE size - octet_length(message) <= %s OR place = 2"
            f" ORDER BY time {order}, id {order}",
            (*values, max_bytes),
        )
        return
    size = 0
    # Row by row; query() would fetch all of them.
    for row in connection.raw.execute(newest.replace("%s", "?"), values):
        size += len(row[3].encode())
        yield *row, size


def _contains(connection: Connection, text: str) -> tuple[str, tuple[str, ...]]:
    """Return a condition, and its values, that finds ``text`` like :func:`folded`."""
    text = folded(text)
    if connection.dialect == "postgresql":
        # The locale of the database may only know upper case of ASCII.
        ascii_ = 'position(%s IN upper(message COLLATE "C")) > 0'
        if not connection.query("SELECT 1 FROM pg_collation WHERE collname = 'und-x-icu'"):
            return ascii_, (text,)
        unicode = 'position(%s IN upper(lower(message COLLATE "und-x-icu"))) > 0'
        if connection.raw.info.parameter_status("server_encoding") != "UTF8":
            cases = _cases(text)
            message = "replace(" * len(cases) + "message" + ", %s, %s)" * len(cases)
            return unicode.replace("message", message), (text, *itertools.chain(*cases))
        # Most messages are ASCII, for which this takes a third of the time.
        is_ascii = "octet_length(message) = char_length(message)"
        return f"CASE WHEN {is_ascii} THEN {ascii_} ELSE {unicode} END", (text, text)
    # LIKE ignores the case of ASCII, without a Python call per row.
    like = text
    for special in "\\%_":
        like = like.replace(special, "\\" + special)
    connection.raw.create_function("unicode_folded", 1, folded, deterministic=True)
    return (
        "CASE WHEN length(message) = length(CAST(message AS BLOB))"
        " THEN message LIKE %s ESCAPE '\\' ELSE instr(unicode_folded(message), %s) > 0 END",
        (f"%{like}%", text),
    )


def _cases(text: str) -> list[tuple[str, str]]:
    """Return the other cases of letters of a folded text, with what each is folded to.

    A database that lacks a letter stores it as an escape, and cannot change its case.
    """
    letters = [letter for letter in dict.fromkeys(text) if not letter.isascii()]
    return [
        (other, letter)
        for letter in letters[:_MOST_LETTERS]
        for other in sorted({letter.lower(), letter.title()} - {letter})
        if len(other) == 1 and folded(other) == letter
    ]
