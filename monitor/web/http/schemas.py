"""Schemas of the API's answers and bodies, from the types that they are encoded from."""

from __future__ import annotations

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


def body(kind: type, *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the ``openapi_extra`` of a route that takes a ``kind`` less the ``optional``."""
    schema, components = msgspec.json.schema_components([kind], ref_template=_REF)
    del schema
    for name in components:
        if name != kind.__name__:
            raise AssertionError(f"{kind.__name__} has parts of its own")
    own = dict(components[kind.__name__])
    own["required"] = [key for key in own.get("required", ()) if key not in optional]
    return {"requestBody": {"required": True, "content": {JSON: {"schema": own}}}}


class Schemas:
    """All the types that routes have named."""

    @staticmethod
    def components() -> dict[str, Any]:
        """Return the components of the OpenAPI document."""
        _, components = msgspec.json.schema_components(list(_known.values()), ref_template=_REF)
        return dict(components)
