"""A request's headers by name. Pure."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["headers_by_name"]


def headers_by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return values by names in lower case.

    Repeated headers are joined, so that no value is overlooked.
    """
    found: dict[str, str] = {}
    for key, value in pairs:
        name = key.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
