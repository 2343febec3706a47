"""Filters of queries and live tails. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, NamedTuple

import msgspec

from monitor.logs.entries import Entry
from monitor.logs.levels import levels_from

__all__ = ["Cursor", "Filter", "Kind", "Query", "SearchedEntry", "folded"]


class Kind(StrEnum):
    """The two kinds of uploads; the value is the key of the list in a message."""

    LOGS = "logs"
    NOTIFICATIONS = "notifications"


@lru_cache(maxsize=4096)
def _needle(text: str) -> str:
    return folded(text)


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
    excludes: tuple[str, ...] = ()
    """Texts that a message must not contain, in any case."""
    regexp: str | None = None
    """A regular expression that must be found in a message. Only a process that can be ended may
    look for it (:mod:`~monitor.logs.expressions`): nothing in this module does."""

    @property
    def searches(self) -> bool:
        """Whether every message has to be looked at: there is no index for that."""
        return bool(self.contains or self.excludes or self.regexp)

    @property
    def levels(self) -> frozenset[str] | None:
        """The names of matching levels; None for all."""
        levels = None if self.min_level is None else levels_from(self.min_level)
        if self.level is not None:
            only = frozenset((self.level,))
            levels = only if levels is None else levels & only
        return levels

    def select(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return the entries that match all but ``regexp``, in order."""
        if self.sender is not None:
            entries = [entry for entry in entries if entry.sender == self.sender]
        levels = self.levels
        if levels is not None:
            entries = [entry for entry in entries if entry.level in levels]
        if self.searches:
            entries = [e for e in entries if self._matches(SearchedEntry(e))]
        return entries

    def select_searched(self, entries: Iterable[SearchedEntry]) -> list[Entry]:
        """Return the entries that match all but ``regexp``, in order.

        What is derived from a message is shared.
        """
        levels = self.levels
        return [
            each.entry
            for each in entries
            if (self.sender is None or each.entry.sender == self.sender)
            and (levels is None or each.entry.level in levels)
            and self._matches(each)
        ]

    def _matches(self, searched: SearchedEntry) -> bool:
        text = searched.folded
        if self.contains and _needle(self.contains) not in text:
            return False
        return not any(_needle(each) in text for each in self.excludes)


class SearchedEntry:
    """An entry whose message is folded once, however many filters look at it."""

    __slots__ = ("_folded", "entry")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._folded: str | None = None

    @property
    def folded(self) -> str:
        """The message without case."""
        if self._folded is None:
            self._folded = folded(self.entry.message)
        return self._folded


class Cursor(NamedTuple):
    """The last entry of a page; the next page continues before it, by (time, id).

    Ids only order entries with the same time, so pages stay stable while new entries arrive.
    """

    time: float
    id: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True, slots=True)
class Query:
    """One page of entries, newest first: (time, id) descending.

    Without ``window_s`` all kept entries are searched; ``since`` and ``until`` (s since the epoch)
    bound their time, the end excluded. ``cursor`` is from the previous page. With ``around`` the
    entries are those before and after that time, half of the limit each.
    """

    kind: Kind
    filter: Filter
    limit: int
    window_s: float | None = None
    cursor: Cursor | None = None
    since: float | None = None
    until: float | None = None
    around: float | None = None
