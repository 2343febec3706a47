"""Severity levels: names or numbers in messages, names in the store."""

from __future__ import annotations

from typing import Final

__all__ = ["LEVELS", "LEVEL_NUMBERS", "level_name", "levels_from"]

# The numbers of Python's logging module, which the clients use.
LEVEL_NUMBERS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
LEVELS: Final = tuple(LEVEL_NUMBERS)

# Names of other loggers: syslog's, java.util.logging's, Node's, Go's, .NET's.
_OTHER_NAMES: Final = {
    "trace": "debug",
    "verbose": "debug",
    "fine": "debug",
    "finer": "debug",
    "finest": "debug",
    "dbg": "debug",
    "information": "info",
    "informational": "info",
    "notice": "info",
    "inf": "info",
    "success": "info",
    "warn": "warning",
    "wrn": "warning",
    "err": "error",
    "severe": "error",
    "fatal": "critical",
    "crit": "critical",
    "alert": "critical",
    "emerg": "critical",
    "emergency": "critical",
    "panic": "critical",
}
_NAMES: Final[dict[str | int, str]] = (
    {name: name for name in LEVELS}
    | _OTHER_NAMES
    | {number: name for name, number in LEVEL_NUMBERS.items()}
)
_LONGEST: Final = max(map(len, (*LEVELS, *_OTHER_NAMES)))


def level_name(level: str | int) -> str | None:
    """Return our name of a level given by name, in any case, or number; None if it is unknown."""
    # As keys True == 1 and 20.0 == 20, but the decoder rejects both types.
    found = _NAMES.get(level)
    if found is None and isinstance(level, str) and len(level) <= _LONGEST + 2:
        found = _NAMES.get(level.strip().lower())
    return found


def levels_from(lowest: str) -> frozenset[str]:
    """Return the names of ``lowest`` and of all more severe levels."""
    return frozenset(LEVELS[LEVELS.index(lowest) :])
