"""Keys that an object of JSON has twice, of which a reader would silently take the last."""

from __future__ import annotations

import json
from typing import Any

from monitor.errors import SettingError
from monitor.validation import printable

__all__ = ["Twice", "each_key_once", "require_each_key_once", "require_keys_once"]


class Twice(dict[str, Any]):
    """An object that has a key twice; ``key`` is the first such key."""

    key = ""

    @classmethod
    def of(cls, found: dict[str, Any], names: list[str]) -> dict[str, Any]:
        """Return ``found``, marked if its names in the text are not different."""
        if len(set(names)) == len(names):
            return found
        twice = cls(found)
        twice.key = next(name for name in names if names.count(name) > 1)
        return twice


def each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object for Python's JSON reader, marked if a key is twice."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else Twice.of(found, [name for name, _ in pairs])


def require_each_key_once(item: Any, *path: str | int) -> None:
    """Raise SettingError with the path of a key that is twice in data with marks."""
    if isinstance(item, Twice):
        raise SettingError((*path, printable(str(item.key))), "duplicate key")
    if isinstance(item, dict):
        for key, value in item.items():
            require_each_key_once(value, *path, printable(str(key)))
    if isinstance(item, list):
        for number, each in enumerate(item):
            require_each_key_once(each, *path, number)


def require_keys_once(text: bytes | str) -> None:
    """Raise SettingError with the path of a key that is twice in a text that is valid JSON."""
    try:
        # Numbers are read elsewhere; Python's own reader has a limit for them.
        found = json.loads(text, object_pairs_hook=each_key_once, parse_int=str, parse_float=str)
        require_each_key_once(found)
    except RecursionError:
        raise SettingError((), "nested too deeply") from None
