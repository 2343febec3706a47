"""Spans of time as people read them, for several commands."""

from __future__ import annotations

__all__ = ["span"]


def span(seconds: float) -> str:
    """Return a span of time in its largest whole unit: ``3 d``, ``5 min``, ``0 s``."""
    seconds = max(0, round(seconds))
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"
