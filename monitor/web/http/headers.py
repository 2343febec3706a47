"""A request's headers by name, for who decides by them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["headers_by_name"]


def headers_by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return values by names in lower case.

    What stands twice is joined, so that no second value can hide behind a first.
    """
    found: dict[str, str] = {}
    for key, value in pairs:
        name = key.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
