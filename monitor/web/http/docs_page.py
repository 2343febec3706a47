"""The API's documentation as one HTML page, generated from the OpenAPI document. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = ["render"]

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} API</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/docs.css">
</head>
<body>
<header><h1>{title} <small>{version}</small></h1>
<p>The HTTP API of this daemon, as it runs. The document that this page is made from is
<a href="/openapi.json">/openapi.json</a>; the page that shows what the daemon sees is
<a href="/">here</a>. Errors are <code>application/problem+json</code>; times are seconds since
the epoch, UTC.</p></header>
"""


def render(document: Mapping[str, Any]) -> str:
    """Return the page."""
    info = document["info"]
    pieces = [_HEAD.format(title=escape(info["title"]), version=escape(info["version"]))]
    pieces.append('<nav aria-label="Calls"><ul>')
    operations = list(_operations(document))
    for name, method, path, _ in operations:
        word = f'<b class="{method}">{method.upper()}</b>'
        pieces.append(f'<li><a href="#{name}">{word} {escape(path)}</a></li>')
    pieces.append("</ul></nav><main>")
    for name, method, path, operation in operations:
        pieces.extend(_operation(name, method, path, operation))
    pieces.append("<h2>Schemas</h2>")
    for schema, content in sorted(document.get("components", {}).get("schemas", {}).items()):
        pieces.append(f'<section class="schema" id="schema-{escape(schema)}">')
        pieces.append(f"<h3>{escape(schema)}</h3>")
        if content.get("description"):
            pieces.append(f"<p>{escape(content['description'])}</p>")
        pieces.extend(_properties(content))
        pieces.append("</section>")
    pieces.append("</main></body></html>\n")
    return "\n".join(pieces)


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = f"{method}{path}".translate(str.maketrans("/{}", "---"))
            yield escape(name), method, path, operation


def _operation(name: str, method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<section id="{name}">'
    yield f'<h2><b class="{method}">{method.upper()}</b> {escape(path)}</h2>'
    yield f"<p>{escape(operation.get('summary', ''))}.</p>"
    parameters = operation.get("parameters", ())
    if parameters:
        yield "<table><thead><tr><th>parameter</th><th>in</th><th>type</th><th>default</th></tr>"
        yield "</thead><tbody>"
        for parameter in parameters:
            schema = parameter.get("schema", {})
            required = " <em>required</em>" if parameter.get("required") else ""
            default = json.dumps(schema["default"]) if "default" in schema else ""
            yield (
                f"<tr><td><code>{escape(parameter['name'])}</code>{required}</td>"
                f"<td>{escape(parameter['in'])}</td><td>{_type(schema)}</td>"
                f"<td>{escape(default)}</td></tr>"
            )
        yield "</tbody></table>"
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
    yield "</ul></section>"


def _properties(schema: Mapping[str, Any]) -> Iterator[str]:
    properties = schema.get("properties")
    if not properties:
        return
    required = set(schema.get("required", ()))
    yield "<table><thead><tr><th>key</th><th>type</th><th>default</th></tr></thead><tbody>"
    for name, content in properties.items():
        default = json.dumps(content["default"]) if "default" in content else ""
        mark = " <em>required</em>" if name in required and not default else ""
        yield (
            f"<tr><td><code>{escape(name)}</code>{mark}</td><td>{_type(content)}</td>"
            f"<td>{escape(default)}</td></tr>"
        )
    yield "</tbody></table>"


def _type(schema: Mapping[str, Any]) -> str:
    """Return a schema in a few words of HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}">{name}</a>'
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_type(option) for option in schema[key])
    if "enum" in schema:
        return " | ".join(escape(json.dumps(value)) for value in schema["enum"])
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        kind = " or ".join(kind)
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and "cursor" in schema.get("properties", {}):
        items = schema["properties"].get("items", {})
        return f"page: {_type(items)}"
    words = escape(str(kind))
    limits = [
        f"{sign} {schema[key]:g}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if isinstance(schema.get(key), (int, float)) and abs(schema[key]) < 2**53
    ]
    return f"{words} ({', '.join(limits)})" if limits else words
