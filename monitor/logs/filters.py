"""Which entries a query or a live tail wants. Pure."""

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
    """The two things that are uploaded; the value is the key of a list of them."""

    LOGS = "logs"
    NOTIFICATIONS = "notifications"


def folded(text: str) -> str:
    """Return ``text`` without case: equal for any two texts whose Unicode case folding is.

    Each character is folded by itself, whatever stands beside it, so a part of a text is found
    in it. Lower and then upper case is what PostgreSQL can do alike (its casefold() is new).
    """
    return text.upper() if text.isascii() else text.lower().upper()


@dataclass(frozen=True, slots=True)
class Filter:
    """What an entry must match; None matches all.

    ``contains`` is compared without case. Equal filters share one live feed.
    """

    sender: str | None = None
    level: str | None = None
    min_level: str | None = None
    contains: str | None = None

    @property
    def levels(self) -> frozenset[str] | None:
        """The level names that match; None for all."""
        levels = None if self.min_level is None else levels_from(self.min_level)
        if self.level is not None:
            only = frozenset((self.level,))
            levels = only if levels is None else levels & only
        return levels

    def select(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return the entries that match, in their order."""
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
    """The last entry of a page; the next page is what comes before it by (time, id).

    Ids only order entries of one time, so pages stay stable while new entries arrive.
    """

    time: float
    id: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True, slots=True)
class Query:
    """One page of entries, newest first: (time, id) descending.

    ``window_s`` is None for all that is kept. ``cursor`` is the last entry of the page before.
    """

    kind: Kind
    filter: Filter
    limit: int
    window_s: float | None = None
    cursor: Cursor | None = None
