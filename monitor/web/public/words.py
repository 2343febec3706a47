"""Times and shares in words, for pages that the server writes. Pure; all times are in UTC."""

from __future__ import annotations

import math
from datetime import UTC, datetime

__all__ = ["day_text", "duration_text", "instant_text", "iso_text", "percent_text"]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def duration_text(seconds: float) -> str:
    """Return a duration with one or two units, such as ``2 h 5 min``."""
    value = max(0, round(seconds))
    if value < _MINUTE:
        return f"{value} s"
    if value < _HOUR:
        return f"{value // _MINUTE} min"
    if value < _DAY:
        minutes = value % _HOUR // _MINUTE
        return f"{value // _HOUR} h" + (f" {minutes} min" if minutes else "")
    hours = value % _DAY // _HOUR
    return f"{value // _DAY} d" + (f" {hours} h" if hours else "")


def percent_text(share: float | None) -> str:
    """Return a share in percent; a failure is never rounded away."""
    if share is None:
        return "–"
    if share >= 1:
        return "100 %"
    return f"{math.floor(share * 10000 + 1e-7) / 100:.2f} %"


def day_text(at: float) -> str:
    """Return a day, such as ``28 Nov 2026``."""
    day = _at(at)
    return f"{day.day} {day:%b %Y}"


def instant_text(at: float) -> str:
    """Return an instant to the minute, such as ``28 Nov 2026, 10:05 UTC``."""
    return f"{day_text(at)}, {_at(at):%H:%M} UTC"


def iso_text(at: float) -> str:
    """Return an instant as RFC 3339 has it."""
    return f"{_at(at):%Y-%m-%dT%H:%M:%SZ}"


def _at(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
