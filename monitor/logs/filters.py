"""Filters of queries and live tails. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec

from monitor.logs.entries import Entry
from monitor.logs.levels import levels_from

__all__ = ["Cursor", "Filter", "Kind", "Query", "folded"]


class Kind(StrEnum):
    """The two kinds of uploads; the value is the key of the list in a message."""

    LOGS = "logs"
    NOTIFICATIONS = "notifications"


def folded(text: str) -> str:
    """Return ``text`` without case: the same for texts with the same Unicode case folding.

    Each character is folded independently of its neighbours, so part of a text is found in it.
    Lower and then upper case gives the same result in PostgreSQL, whose casefold() is new.
    """
    return text.upper() if text.isascii() else text.lower().upper()


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions for an entry; None matches all.

    ``contains`` ignores case. Equal filters share a live feed.
    """

    sender: str | None = None
    level: str | None = None
    min_level: str | None = None
    contains: str | None = None

    @property
    def levels(self) -> frozenset[str] | None:
        """The names of matching levels; None for all."""
        levels = None if self.min_level is None else levels_from(self.min_level)
        if self.level is not None:
            only = frozenset((self.level,))
            levels = only if levels is None else levels & only
        return levels

    def select(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return the matching entries, in order."""
        if self.sender is not None:
            entries = [entry for entry in entries if entry.sender == self.sender]
        levels = self.levels
        if levels is not None:
            entries = [entry for entry in entries if entry.level in levels]
        if self.contains:
            needle = folded(self.contains)
            entries = [entry for entry in entries if needle in folded(entry.message)]
        return entries


class Cursor(NamedTuple):
    """The last entry of a page; the next page continues before it, by (time, id).

    Ids only order entries with the same time, so pages stay stable while new entries arrive.
    """

    time: float
    id: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True, slots=True)
class Query:
    """One page of entries, newest first: (time, id) descending.

    Without ``window_s`` all kept entries are searched. ``cursor`` is from the previous page.
    """

    kind: Kind
    filter: Filter
    limit: int
    window_s: float | None = None
    cursor: Cursor | None = None
