"""Severity levels: by name or number in messages, by name in the store."""

from __future__ import annotations

from typing import Final

__all__ = ["LEVELS", "LEVEL_NUMBERS", "level_name", "levels_from"]

# Python's logging numbers, which the fleet's clients use.
LEVEL_NUMBERS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
LEVELS: Final = tuple(LEVEL_NUMBERS)

_NAMES: Final[dict[str | int, str]] = {name: name for name in LEVELS} | {
    number: name for name, number in LEVEL_NUMBERS.items()
}


def level_name(level: str | int) -> str | None:
    """Return the name of a level given by name or number; None where there is no such level."""
    # True == 1 and 20.0 == 20 as keys, but neither is a level: the decoder refuses both types.
    return _NAMES.get(level)


def levels_from(lowest: str) -> frozenset[str]:
    """Return the names of ``lowest`` and of all more severe levels."""
    return frozenset(LEVELS[LEVELS.index(lowest) :])
