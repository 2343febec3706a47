"""A result as a row of ``availability_result``: its columns are the fields of Result. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import inspect

from monitor.messages import Result

__all__ = ["COLUMN_LIST", "COLUMN_TYPES", "result_from", "row_of"]

_SIMPLE = {
    inspect.BoolType: "boolean",
    inspect.FloatType: "double precision",
    inspect.StrType: "text",
}


def _column_type(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.Metadata):
        return _column_type(kind.type)
    if isinstance(kind, inspect.UnionType):
        (kind,) = (part for part in kind.types if not isinstance(part, inspect.NoneType))
        return _column_type(kind)
    if isinstance(kind, inspect.IntType):
        return "integer" if kind.le is not None and kind.le < 2**31 else "bigint"
    return _SIMPLE.get(type(kind), "jsonb")


def _reader(name: str, kind: Any) -> Callable[[Any], Any] | None:
    """Return what converts a stored value to that of the field; None if nothing has to."""
    if COLUMN_TYPES[name] == "boolean":
        return bool  # SQLite stores 0 and 1
    if COLUMN_TYPES[name] == "jsonb":
        return msgspec.json.Decoder(kind).decode
    return None


_INFO = inspect.type_info(Result)
assert isinstance(_INFO, inspect.StructType)

COLUMN_TYPES = {field.name: _column_type(field.type) for field in _INFO.fields}
"""The PostgreSQL type of each column, in the order of :func:`row_of`."""

COLUMN_LIST = ", ".join(COLUMN_TYPES)
"""The columns' names, as SQL lists them."""

_JSON_COLUMNS = [index for index, kind in enumerate(COLUMN_TYPES.values()) if kind == "jsonb"]
# Of each column: its name, the value that null stands for, and what converts other values.
_READERS = [
    (field.name, field.default, _reader(field.name, field.type))
    for field in msgspec.structs.fields(Result)
]

_encode = msgspec.json.Encoder().encode


def row_of(result: Result) -> tuple[Any, ...]:
    """Return the row of a result: JSON as text, other fields as they are."""
    values = list(msgspec.structs.astuple(result))
    for index in _JSON_COLUMNS:
        values[index] = _encode(values[index]).decode()
    return tuple(values)


def result_from(row: Sequence[Any]) -> Result:
    """Return the result in a row selected with COLUMN_LIST; null stands for the default."""
    values = {}
    for (name, default, read), value in zip(_READERS, row, strict=True):
        if value is None:
            values[name] = default
        else:
            values[name] = value if read is None else read(value)
    return Result(**values)
