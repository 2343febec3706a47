"""Severity levels: names or numbers in messages, names in the store."""

from __future__ import annotations

from typing import Final

__all__ = ["LEVELS", "LEVEL_NUMBERS", "level_name", "levels_from"]

# The numbers of Python's logging module, which the clients use.
LEVEL_NUMBERS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
LEVELS: Final = tuple(LEVEL_NUMBERS)

_NAMES: Final[dict[str | int, str]] = {name: name for name in LEVELS} | {
    number: name for name, number in LEVEL_NUMBERS.items()
}


def level_name(level: str | int) -> str | None:
    """Return the name of a level given by name or number; None if it does not exist."""
    # As keys True == 1 and 20.0 == 20, but the decoder rejects both types.
    return _NAMES.get(level)


def levels_from(lowest: str) -> frozenset[str]:
    """Return the names of ``lowest`` and of all more severe levels."""
    return frozenset(LEVELS[LEVELS.index(lowest) :])
