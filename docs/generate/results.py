"""A result's keys and columns, of the struct that declares it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import inspect

from monitor.aggregation.result_columns import COLUMN_TYPES
from monitor.messages import Result

__all__ = ["result_columns", "result_keys"]


def result_keys() -> str:
    """Return the table of the keys that a published result has."""
    lines = ["| key | meaning |", "|---|---|"]
    lines.extend(f"| {name} | {text} |" for name, text in _described())
    return "\n".join(lines)


def result_columns() -> str:
    """Return the table of the columns of availability_result."""
    lines = ["| column | type | what |", "|---|---|---|"]
    for name, text in _described():
        kind = COLUMN_TYPES[name].replace("double precision", "double")
        lines.append(f"| {name} | {kind} | {text} |")
    return "\n".join(lines)


def _described() -> Iterator[tuple[str, str]]:
    info = inspect.type_info(Result)
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        assert isinstance(field.type, inspect.Metadata), f"{field.name} has no description"
        yield field.name, str((field.type.extra_json_schema or {})["description"])
