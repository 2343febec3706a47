"""Pages and counts of queries with a regular expression.

Entries that match all else are read in parts, each in a transaction of its own, and their messages
are matched between two of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Protocol

from monitor.logs.entries import Entry
from monitor.logs.expressions import MESSAGE_BYTES, MESSAGES
from monitor.logs.filters import Cursor, Query
from monitor.logs.pages import Placed, halves

__all__ = ["Read", "Select", "matches", "scanned_page"]

Select = Callable[[str, Sequence[str]], Awaitable[list[int]]]
"""Returns the places of the messages in which an expression is found."""


class Read(Protocol):
    """Reads a part of the entries, as :func:`monitor.logs.pages.read`."""

    def __call__(
        self, query: Query, *, max_bytes: int, newer: bool
    ) -> Awaitable[tuple[list[Placed], bool]]:
        """Return entries, and whether there are more."""
        ...


async def scanned_page(
    query: Query, read: Read, select: Select, *, max_bytes: int, expired: Callable[[], bool]
) -> tuple[list[Entry], Cursor | None]:
    """Return a page as :func:`monitor.logs.pages.page` does.

    Once ``expired``, it ends after the entries that were looked at, with the cursor of the others.
    """
    newer: list[Placed] = []
    if query.around is not None:
        query, after = halves(query)
        max_bytes //= 2
        newer, _ = await _found(after, read, select, max_bytes, expired, newer=True)
    older, cursor = await _found(query, read, select, max_bytes, expired)
    return [each.entry for each in (*reversed(newer), *older)], cursor


async def _found(
    query: Query,
    read: Read,
    select: Select,
    max_bytes: int,
    expired: Callable[[], bool],
    *,
    newer: bool = False,
) -> tuple[list[Placed], Cursor | None]:
    found: list[Placed] = []
    size = 0
    if not query.limit:
        return found, None
    async with contextlib.aclosing(matches(query, read, select, newer=newer)) as parts:
        async for matching, rest in parts:
            for each in matching:
                size += len(each.entry.message.encode())
                if found and (len(found) == query.limit or size > max_bytes):
                    return found, found[-1].cursor
                found.append(each)
            if rest is not None and expired():
                return found, rest
    return found, None


async def matches(
    query: Query, read: Read, select: Select, *, newer: bool = False
) -> AsyncGenerator[tuple[list[Placed], Cursor | None], None]:
    """Yield what matches in each part that is read, with the cursor of the rest, if there is any.

    The query's own limit has no effect.
    """
    regexp = query.filter.regexp
    assert regexp is not None
    all_else = dataclasses.replace(query.filter, regexp=None)
    part = dataclasses.replace(query, filter=all_else, limit=MESSAGES)
    while True:
        read_now, more = await read(part, max_bytes=MESSAGE_BYTES, newer=newer)
        places = await select(regexp, [each.entry.message for each in read_now])
        rest = read_now[-1].cursor if more else None
        yield [read_now[place] for place in places], rest
        if rest is None:
            return
        part = dataclasses.replace(part, cursor=rest)
