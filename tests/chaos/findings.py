"""What was found at the end: one entry an invariant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Finding", "some"]

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """An invariant, in how much it was looked at, and where it does not hold."""

    invariant: str
    counts: str
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.problems

    def lines(self) -> list[str]:
        """Return it for people."""
        first = f"  {'holds ' if self.holds else 'BROKEN'}  {self.invariant}: {self.counts}"
        return [first, *(f"          {problem}" for problem in some(self.problems))]


def some(problems: Iterable[str]) -> list[str]:
    """Return the first few, and how many more there are."""
    found = list(problems)
    more = [f"... and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return found[:_SHOWN] + more
