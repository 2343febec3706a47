"""Schemas of the API's answers and bodies, from the types that they are encoded from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

__all__ = ["JSON", "Schemas", "answer", "body", "listed"]

JSON = "application/json"
_REF = "#/components/schemas/{name}"
_known: dict[str, type] = {}


def _ref(kind: type) -> dict[str, Any]:
    _known[kind.__name__] = kind
    return {"$ref": _REF.format(name=kind.__name__)}


def answer(kind: type, description: str) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that answers with one ``kind``, or 304."""
    return _given(_ref(kind), description)


def listed(kind: type, description: str) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that answers with a page of ``kind``, or 304."""
    schema = {
        "type": "object",
        "required": ["items", "cursor"],
        "additionalProperties": False,
        "properties": {
            "items": {"type": "array", "items": _ref(kind)},
            "cursor": {"type": ["string", "null"]},
        },
    }
    return _given(schema, description)


def _given(schema: dict[str, Any], description: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {"description": description, "content": {JSON: {"schema": schema}}},
        304: {"description": "The client has it already (If-None-Match)"},
    }


def body(
    kind: Any, *, optional: tuple[str, ...] = (), default_tag: str | None = None
) -> dict[str, Any]:
    """Return the ``openapi_extra`` of a route that takes one ``kind``, or one of a tagged union.

    Keys in ``optional`` may be left out, and so may the tag if it is ``default_tag``.
    """
    _, components = msgspec.json.schema_components([kind], ref_template=_REF)
    parts = {_REF.format(name=name): each for name, each in components.items()}
    inner = {place for each in components.values() for place in _references(each)}
    schemas = [
        _body_of(_inlined(each, parts), optional, default_tag)
        for place, each in parts.items()
        if place not in inner
    ]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each)


def _inlined(schema: Any, parts: Mapping[str, Any]) -> Any:
    """Return a schema with the parts that it refers to in their places."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(parts[schema["$ref"]], parts)
        return {key: _inlined(value, parts) for key, value in schema.items()}
    return [_inlined(each, parts) for each in schema] if isinstance(schema, list) else schema


def _body_of(
    schema: dict[str, Any], optional: tuple[str, ...], default_tag: str | None
) -> dict[str, Any]:
    may_miss = {*optional}
    for key, value in schema["properties"].items():
        if value.get("enum") == [default_tag]:
            may_miss.add(key)
    schema["required"] = [key for key in schema.get("required", ()) if key not in may_miss]
    return schema


class Schemas:
    """All the types that routes have named."""

    @staticmethod
    def components() -> dict[str, Any]:
        """Return the components of the OpenAPI document."""
        _, components = msgspec.json.schema_components(list(_known.values()), ref_template=_REF)
        return dict(components)
