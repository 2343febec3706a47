"""The kinds of check: one module a kind, named like it, with one class.

A kind is added by adding its module; nothing else needs to know.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from monitor.errors import SettingError
from monitor.libraries import needed_by
from monitor.probes.check import Check

__all__ = ["kind_of", "kinds", "load_kind"]

_loaded: dict[str, type[Check]] = {}


def kinds() -> list[str]:
    """Return the names of all kinds."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_kind(kind: str) -> type[Check]:
    """Return the class that checks jobs of ``kind``; raise SettingError if there's none."""
    found = _loaded.get(kind)
    if found is None:
        known = kinds()
        if kind not in known:
            near = difflib.get_close_matches(kind, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            raise SettingError(("kind",), f"unknown kind {kind!r}{hint}")
        name = f"{__name__}.{kind}"
        with needed_by("probes"):
            module = importlib.import_module(name)
        (found,) = (
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Check) and value.__module__ == name
        )
        _loaded[kind] = found
    return found


def kind_of(url: str) -> str | None:
    """Return the kind that checks URLs like this one, or None."""
    scheme = url.partition("://")[0].lower()
    return next((kind for kind in kinds() if scheme in load_kind(kind).schemes), None)
