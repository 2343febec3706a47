"""Leaves out the invalid values of a config, so that one reading finds all of its errors."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

from monitor.errors import SettingError, SettingPath

__all__ = ["Omissions"]

# A file with more errors is probably not a config.
_MOST_ERRORS = 20
# Each time that something is left out costs another look at the rest.
_MOST_LOOKS = 100


class Omissions:
    """The errors of a config so far, and the paths that are left out because of them."""

    def __init__(self) -> None:
        self.errors: list[SettingError] = []
        # Whether the rest of the config was not read.
        self.gave_up = False
        self._paths: set[SettingPath] = set()
        # What these paths are in, to any depth; of lists also the indexes, in order.
        self._around: set[SettingPath] = set()
        self._indexes: dict[SettingPath, list[int]] = {}
        self._looks = 0
        # The items of lists among them.
        self._left_out: dict[SettingPath, Any] = {}
        # The last data, and a copy of it without keys that are other than strings.
        self._applied_to: Any = None
        self._named: Any = None

    def add(self, error: SettingError, paths: Sequence[SettingPath] | None = None) -> bool:
        """Add an error and leave out its path, or ``paths``; return whether to look for more.

        Paths and that of ``error`` are those of :meth:`apply`'s result.
        """
        for each in (error, *error.others):
            if self.is_full:
                return False
            original = self.original(each.path)
            if not self._is_known(original, each):
                self.errors.append(SettingError(original, each.problem, whole=each.whole))
        gone = [self.original(path) for path in ([error.path] if paths is None else paths)]
        if not gone[0] or gone[0] in self._paths or self.is_full:
            return False
        self._looks += 1
        for path in set(gone) - self._paths:
            if isinstance(path[-1], int):
                bisect.insort(self._indexes.setdefault(path[:-1], []), path[-1])
        self._paths.update(gone)
        self._around.update(path[:depth] for path in gone for depth in range(len(path)))
        return True

    def _is_known(self, original: SettingPath, error: SettingError) -> bool:
        """Return whether the file has no such error, or it is among the errors already."""
        # What cannot be left out is found again each time.
        if any((each.path, each.problem) == (original, error.problem) for each in self.errors):
            return True
        # What only became wrong by the omissions is not an error of the file.
        missing = error.problem.removeprefix("the key ").removesuffix(" is missing")
        if (*original, missing) in self._paths or original in self._indexes:
            return True
        if (
            original
            and isinstance(original[-1], int)
            and (original in self._paths or original in self._around)
        ):
            return True
        return error.among is not None and self._may_have(*error.among)

    def _may_have(self, among: SettingPath, key: str, value: object) -> bool:
        """Return whether an item of a list that is left out may be the one with this value."""
        for path, item in self._left_out.items():
            if path[:-1] == among:
                found = item.get(key) if isinstance(item, dict) else None
                if found == value or found.__class__ is not value.__class__:
                    return True
        return False

    @property
    def is_full(self) -> bool:
        """Whether there are so many errors that no more are looked for."""
        return len(self.errors) >= _MOST_ERRORS or self._looks >= _MOST_LOOKS

    def touches(self, section: str) -> bool:
        """Return whether something in ``section`` is left out."""
        return any(path[0] == section for path in self._paths)

    def apply(self, data: Any) -> Any:
        """Return ``data`` without what is left out; both have the other values in common."""
        if not self._paths:
            return data
        if self._applied_to is not data:
            self._applied_to, self._named = data, _with_named_keys(data)
        return self._rest(self._named, ())

    def _rest(self, data: Any, at: SettingPath) -> Any:
        if at not in self._around:
            return data
        if isinstance(data, dict):
            return {
                key: self._rest(value, (*at, key))
                for key, value in data.items()
                if (*at, key) not in self._paths
            }
        if isinstance(data, list):
            kept = []
            for index, item in enumerate(data):
                if (*at, index) in self._paths:
                    self._left_out[*at, index] = item
                else:
                    kept.append(self._rest(item, (*at, index)))
            return kept
        return data

    def original(self, path: SettingPath) -> SettingPath:
        """Return the path in the file for a ``path`` in the data without the omissions."""
        found: SettingPath = ()
        for step in path:
            place = step
            if isinstance(place, int):
                place = _index_with(self._indexes.get(found, []), place)
            found = (*found, place)
        return found


def _index_with(gone: list[int], index: int) -> int:
    """Return the index of an item where the items ``gone`` are there, too."""
    return index + bisect.bisect_right(range(len(gone)), index, key=lambda at: gone[at] - at)


def _with_named_keys(data: Any) -> Any:
    """Return a copy without the keys that are other than strings, which are errors already."""
    if isinstance(data, dict):
        return {key: _with_named_keys(item) for key, item in data.items() if isinstance(key, str)}
    if isinstance(data, list):
        return [_with_named_keys(item) for item in data]
    return data
