"""The API's documentation as one HTML page, generated from the OpenAPI document. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["render"]

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} API</title>
<link rel="icon" href="static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="static/docs.css">
</head>
<body>
<header><h1>{title} <small>{version}</small></h1>
<p>The HTTP API of this daemon, as it runs. The document that this page is made from is
<a href="openapi.json">/openapi.json</a>; the page that shows what the daemon sees is
<a href="./">here</a>. Errors are <code>application/problem+json</code>; times are seconds since
the epoch, UTC.</p></header>
"""

_LIMITS = (
    ("minimum", "≥"),
    ("exclusiveMinimum", ">"),
    ("maximum", "≤"),
    ("exclusiveMaximum", "<"),
)


def render(document: Mapping[str, Any]) -> str:
    """Return the page."""
    info = document["info"]
    operations = [
        (escape(f"{method}{path}".translate(str.maketrans("/{}", "---"))), method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    pieces = [_HEAD.format(title=escape(info["title"]), version=escape(info["version"]))]
    pieces.append('<nav aria-label="Calls"><ul>')
    for name, method, path, _ in operations:
        word = f'<b class="{method}">{method.upper()}</b>'
        pieces.append(f'<li><a href="#{name}">{word} {escape(path)}</a></li>')
    pieces.append("</ul></nav><main>")
    for name, method, path, operation in operations:
        pieces.append(f'<section id="{name}">')
        pieces.append(f'<h2><b class="{method}">{method.upper()}</b> {escape(path)}</h2>')
        pieces.extend(_operation(operation))
        pieces.append("</section>")
    pieces.append("<h2>Schemas</h2>")
    for schema, content in sorted(document.get("components", {}).get("schemas", {}).items()):
        pieces.append(f'<section id="schema-{escape(schema)}"><h3>{escape(schema)}</h3>')
        pieces.append(f"<p>{escape(content.get('description', ''))}</p>")
        pieces.extend(_properties(content))
        pieces.append("</section>")
    pieces.append("</main></body></html>\n")
    return "\n".join(pieces)


def _operation(operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<p>{escape(operation.get('summary', ''))}.</p>"
    yield from _table(
        "parameter",
        [
            (each["name"], each.get("schema", {}), bool(each.get("required")))
            for each in operation.get("parameters", ())
        ],
    )
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Takes <code>{escape(media_type)}</code>: {_type(content.get('schema', {}))}</p>"
        yield from _properties(content.get("schema", {}))
    yield "<ul class=responses>"
    for status, response in operation.get("responses", {}).items():
        types = ", ".join(
            f"<code>{escape(media)}</code> {_type(content.get('schema', {}))}"
            for media, content in response.get("content", {}).items()
        )
        described = escape(response.get("description", "")) + (" &mdash; " if types else "")
        yield f"<li><b>{escape(str(status))}</b> {described}{types}</li>"
    yield "</ul>"


def _properties(schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    properties = schema.get("properties", {}).items()
    return _table("key", [(name, content, name in required) for name, content in properties])


def _table(what: str, rows: Sequence[tuple[str, Mapping[str, Any], bool]]) -> Iterator[str]:
    """Yield a table of names, their schemas, and whether they are required."""
    if not rows:
        return
    yield f"<table><thead><tr><th>{what}</th><th>type</th><th>default</th></tr></thead><tbody>"
    for name, schema, required in rows:
        default = json.dumps(schema["default"]) if "default" in schema else ""
        mark = " <em>required</em>" if required and not default else ""
        yield (
            f"<tr><td><code>{escape(name)}</code>{mark}</td><td>{_type(schema)}</td>"
            f"<td>{escape(default)}</td></tr>"
        )
    yield "</tbody></table>"


def _type(schema: Mapping[str, Any]) -> str:
    """Return a schema in a few words of HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}">{name}</a>'
    if options := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(map(_type, options))
    if "enum" in schema:
        return " | ".join(escape(json.dumps(value)) for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and "cursor" in schema.get("properties", {}):
        return f"page: {_type(schema['properties'].get('items', {}))}"
    words = escape(" or ".join(kind) if isinstance(kind, list) else kind)
    limits = [
        f"{sign} {schema[key]:g}"
        for key, sign in _LIMITS
        if isinstance(schema.get(key), (int, float)) and abs(schema[key]) < 2**53
    ]
    return f"{words} ({', '.join(limits)})" if limits else words
