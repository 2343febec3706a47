"""The keys of each kind of check, from the structs that jobs are read with: for forms.

The text of a key is the comment above its field, as in the manual page.
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any

import msgspec

from monitor.probes.checks import DEFAULT_KIND, KINDS
from monitor.probes.job import Job
from monitor.settings import is_marked

__all__ = ["JobKeys", "JobKind", "job_keys", "kinds"]

_FIELD = re.compile(r"    (\w+): ")
_COMMENT = re.compile(r"    # ?(.*)")
# What everybody fills in, in this order; the others follow.
_FIRST = ("name", "url", "interval", "timeout", "tags")


class JobKind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of check; ``schema`` is the JSON schema of its keys, those to fill in first first.

    A key with ``writeOnly`` may be a secret. ``common`` are those that every kind has.
    """

    kind: str
    summary: str
    schemes: list[str]
    common: list[str]
    schema: dict[str, Any]


class JobKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a job; those in ``hidden`` have values that are not shown."""

    keys: dict[str, Any]
    hidden: list[str]


@functools.cache
def kinds() -> list[JobKind]:
    """Return all kinds, the default one first."""
    return [_kind(name) for name in sorted(KINDS, key=lambda name: (name != DEFAULT_KIND, name))]


def job_keys(job: Job) -> JobKeys:
    """Return the keys of a job without its secrets."""
    keys: dict[str, Any] = msgspec.to_builtins(job)
    hidden = [key for key in _secrets(type(job)) if keys[key]]
    for key in hidden:
        del keys[key]
    if job.url and job.shown_url != job.url:
        keys["url"] = job.shown_url
        hidden.append("url")
    return JobKeys(keys=keys, hidden=hidden)


def _kind(name: str) -> JobKind:
    struct = KINDS[name].job
    (_, components) = msgspec.json.schema_components([struct], ref_template="{name}")
    schema = components[struct.__name__]
    texts, secrets = _texts(struct), _secrets(struct)
    given = schema["properties"]
    required = [key for key in schema.get("required", ()) if key not in ("id", "kind")]
    defaults: dict[str, Any] = msgspec.to_builtins(struct(id=1, url=""))
    order = [*(key for key in _FIRST if key in given), *(key for key in given if key not in _FIRST)]
    properties = {}
    for key in order:
        if key == "id" or (key == "url" and not struct.schemes):
            continue
        properties[key] = {**given[key], "description": texts.get(key, "")}
        if key not in required and key != "kind":
            properties[key]["default"] = defaults[key]
        if key in secrets:
            properties[key]["writeOnly"] = True
    return JobKind(
        kind=name,
        summary=(struct.__doc__ or "").strip().partition("\n")[0],
        schemes=list(struct.schemes),
        common=[key for key in properties if key in Job.__struct_fields__],
        schema={"type": "object", "properties": properties, "required": required},
    )


@functools.cache
def _secrets(struct: type[Job]) -> tuple[str, ...]:
    kind = msgspec.inspect.type_info(struct)
    assert isinstance(kind, msgspec.inspect.StructType)
    return tuple(field.encode_name for field in kind.fields if is_marked(field.type, "secret"))


def _texts(struct: type[Job]) -> dict[str, str]:
    """Return the comments above the fields of a struct and its bases."""
    found: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if not issubclass(base, Job):
            continue
        comment: list[str] = []
        for line in inspect.getsource(base).splitlines():
            text, field = _COMMENT.match(line), _FIELD.match(line)
            if text:
                comment.append(text[1])
                continue
            if field and comment:
                found[field[1]] = " ".join(comment)
            comment = []
    return found
