"""The kinds of check: one module or package each, named like the kind.

It holds a subclass of :class:`Job` with the kind's own keys, tagged with its name, and a
subclass of :class:`Check`. Adding the module adds the kind: the config, the API, the command
``probe`` and the documentation read everything from here.

Every daemon imports these modules with its config, so they import no library at their top:
see :meth:`Check.load`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Union

import msgspec

from monitor.errors import SettingError
from monitor.libraries import needed_by
from monitor.probes.check import ERRORS, Check
from monitor.probes.job import Job, verify_text
from monitor.probes.urls import WEB_SCHEMES, split_scheme
from monitor.validation import did_you_mean, place_and_problem, printable, unknown_tagged_key

__all__ = [
    "DEFAULT_KIND",
    "KINDS",
    "AnyJob",
    "error_words",
    "kind_of",
    "load_kinds",
    "read_job",
    "with_kind",
]

DEFAULT_KIND = "http"


def _found() -> Iterator[tuple[str, type[Check[Any]]]]:
    for module in pkgutil.iter_modules(__path__):
        name = f"{__name__}.{module.name}"
        (check,) = (
            value
            for value in vars(importlib.import_module(name)).values()
            if isinstance(value, type) and issubclass(value, Check) and value.__module__ == name
        )
        yield module.name, check


KINDS: dict[str, type[Check[Any]]] = dict(sorted(_found()))
"""The kinds by name."""

_KEYS = {
    kind: ["kind", *(field.encode_name for field in msgspec.structs.fields(check.job))]
    for kind, check in KINDS.items()
}

if TYPE_CHECKING:
    AnyJob = Job
else:
    # What msgspec decodes jobs to: the struct of the kind that they name.
    AnyJob = Union[tuple(check.job for check in KINDS.values())]  # noqa: UP007


def with_kind(data: Any) -> Any:
    """Return a job's raw data with its kind, which may be left out."""
    return {"kind": DEFAULT_KIND, **data} if isinstance(data, dict) else data


def read_job(data: Any) -> Job:
    """Return the verified job that raw ``data`` describes; raise SettingError with the key."""
    if not isinstance(data, dict):
        raise SettingError((), "a job must be an object of keys and values")
    kind = data.get("kind", DEFAULT_KIND)
    if not isinstance(kind, str):
        raise SettingError(("kind",), f"expected one of {', '.join(KINDS)}")
    if kind not in KINDS:
        raise SettingError(("kind",), f"unknown kind {kind!r}; {did_you_mean(kind, list(KINDS))}")
    for key in data:
        if isinstance(key, str) and key not in _KEYS[kind]:
            raise SettingError((printable(key),), unknown_tagged_key(key, "kind", kind, _KEYS))
    struct = KINDS[kind].job
    try:
        job = msgspec.convert(data, struct)
    except msgspec.ValidationError as error:
        place, problem = place_and_problem(error, struct)
        raise SettingError((place,) if place else (), problem) from None
    except UnicodeEncodeError:
        # Of a key that is not text; those that are get verified.
        verify_text((), data)
        raise
    job.verify()
    return job


def kind_of(url: str) -> str | None:
    """Return the kind that checks URLs like this one, or None."""
    scheme, rest = split_scheme(url)
    if not rest.startswith(("/", "\\")) and scheme not in WEB_SCHEMES:
        # A host with its port, such as ping:8080.
        return None
    return next((kind for kind, check in KINDS.items() if scheme in check.job.schemes), None)


def load_kinds(jobs: Iterable[Job]) -> None:
    """Import what the kinds of these jobs need; raise MissingPackageError."""
    with needed_by("probes"):
        for kind in sorted({job.kind for job in jobs}):
            KINDS[kind].load()


def error_words() -> dict[str, str]:
    """Return every first word of ``error``, with its explanation."""
    words = dict(ERRORS)
    for check in KINDS.values():
        words |= check.errors
    return words
