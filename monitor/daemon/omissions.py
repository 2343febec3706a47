"""Leaves out the invalid values of a config, so that one reading finds all of its errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from monitor.errors import SettingError, SettingPath

__all__ = ["Omissions"]

# A file with more errors is probably not a config.
_MOST_ERRORS = 20


class Omissions:
    """The errors of a config so far, and the paths that are left out because of them."""

    def __init__(self) -> None:
        self.errors: list[SettingError] = []
        # Whether the rest of the config was not read.
        self.gave_up = False
        self._paths: set[SettingPath] = set()
        # The items of lists among them.
        self._left_out: dict[SettingPath, Any] = {}

    def add(self, error: SettingError, path: SettingPath | None = None) -> bool:
        """Add an error and leave out its path, or ``path``; return whether to look for more.

        The path of ``error`` is one of :meth:`apply`'s result.
        """
        gone = self.original(error.path if path is None else path)
        for each in (error, *error.others):
            original = self.original(each.path)
            if not self.is_full and not self._is_known(original, each):
                self.errors.append(SettingError(original, each.problem, whole=each.whole))
        if not gone or gone in self._paths or self.is_full:
            return False
        self._paths.add(gone)
        return True

    def _is_known(self, original: SettingPath, error: SettingError) -> bool:
        """Return whether the file has no such error, or it is among the errors already."""
        # What cannot be left out is found again each time.
        if any((each.path, each.problem) == (original, error.problem) for each in self.errors):
            return True
        # What only became wrong by the omissions is not an error of the file.
        missing = error.problem.removeprefix("the key ").removesuffix(" is missing")
        if (*original, missing) in self._paths or original in self._lists():
            return True
        if original and isinstance(original[-1], int):
            below = len(original)
            if any(path[:below] == original for path in self._paths):
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
        return len(self.errors) >= _MOST_ERRORS

    def touches(self, section: str) -> bool:
        """Return whether something in ``section`` is left out."""
        return any(path[0] == section for path in self._paths)

    def apply(self, data: Any) -> Any:
        """Return ``data`` without what is left out."""
        if not self._paths:
            return data
        return self._copy(data, ())

    def _copy(self, data: Any, at: SettingPath) -> Any:
        if isinstance(data, dict):
            # Another key than a string is an error already.
            return {
                key: self._copy(value, (*at, key))
                for key, value in data.items()
                if isinstance(key, str) and (*at, key) not in self._paths
            }
        if isinstance(data, list):
            kept = []
            for index, item in enumerate(data):
                if (*at, index) in self._paths:
                    self._left_out[*at, index] = item
                else:
                    kept.append(self._copy(item, (*at, index)))
            return kept
        return data

    def original(self, path: SettingPath) -> SettingPath:
        """Return the path in the file for a ``path`` in the data without the omissions."""
        found: SettingPath = ()
        for step in path:
            place = step
            if isinstance(place, int):
                for gone in sorted(self._indexes(found)):
                    place += gone <= place
            found = (*found, place)
        return found

    def _lists(self) -> set[SettingPath]:
        return {path[:-1] for path in self._paths if isinstance(path[-1], int)}

    def _indexes(self, at: SettingPath) -> Iterator[int]:
        for path in self._paths:
            if path[:-1] == at and isinstance(path[-1], int):
                yield path[-1]
