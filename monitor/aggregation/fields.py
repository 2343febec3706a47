"""Counts other numbers of a result than its response time. Pure.

The counters of a field are added up as those of the response time: across consumers, and into the
stored windows. A percentile has the same error, see :mod:`monitor.aggregation.windows`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple

import msgspec
from msgspec import inspect

from monitor.messages import Result

__all__ = ["FieldCounters", "Measure", "add_fields", "measure", "numeric_fields", "value_of"]

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?)")


class FieldCounters(msgspec.Struct, gc=False):
    """The counters of one field in one window; ``buckets`` only if percentiles are wanted."""

    count: int
    min: float
    max: float
    sum: float
    buckets: dict[str, int] = {}


class Measure(NamedTuple):
    """A field to count."""

    field: str
    read: Callable[[Result], float | None]
    buckets: bool


def numeric_fields() -> list[str]:
    """Return the dotted names of all numbers in a result."""
    return list(_numbers(Result, ""))


def measure(field: str, functions: Iterable[str]) -> Measure:
    """Return the measure for a field; raises ValueError for one that is not a number."""
    known = numeric_fields()
    if field not in known:
        near = difflib.get_close_matches(field, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the numbers are {', '.join(known)}"
        raise ValueError(f"{field} is not a number of a result; {hint}")
    wanted = any(_PERCENTILE.fullmatch(name) for name in functions)
    return Measure(field, attrgetter(field), wanted)


def add_fields(
    first: Mapping[str, FieldCounters], second: Mapping[str, FieldCounters]
) -> dict[str, FieldCounters]:
    """Add counters field by field."""
    added = dict(first)
    for field, other in second.items():
        mine = added.get(field)
        if mine is None:
            added[field] = other
            continue
        buckets = dict(mine.buckets)
        for key, count in other.buckets.items():
            buckets[key] = buckets.get(key, 0) + count
        added[field] = FieldCounters(
            mine.count + other.count,
            min(mine.min, other.min),
            max(mine.max, other.max),
            mine.sum + other.sum,
            buckets,
        )
    return added


def value_of(
    counters: FieldCounters,
    function: str,
    percentile: Callable[..., float | None],
) -> float | None:
    """Return ``min``, ``max``, ``avg``, ``sum`` or a percentile such as ``p95``.

    None for a percentile of a window that was counted without.
    """
    match = _PERCENTILE.fullmatch(function)
    if match is not None:
        return percentile(
            counters.buckets, float(match[1]) / 100, rt_min=counters.min, rt_max=counters.max
        )
    if function == "avg":
        return counters.sum / counters.count
    value: float = getattr(counters, function)
    return value


def _numbers(kind: type, prefix: str) -> Iterable[str]:
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    for field in found.fields:
        for part in _parts(field.type):
            if isinstance(part, inspect.IntType | inspect.FloatType):
                yield prefix + field.name
            elif isinstance(part, inspect.StructType):
                yield from _numbers(part.cls, f"{prefix}{field.name}.")


def _parts(kind: inspect.Type) -> Iterable[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        yield from _parts(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for part in kind.types:
            yield from _parts(part)
    else:
        yield kind
