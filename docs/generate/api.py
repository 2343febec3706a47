"""The API's calls, from the OpenAPI document that the daemon serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI

from docs.generate.daemon import assembled
from monitor.bus.look import TopicLook
from monitor.tokens import TokenFile
from monitor.web.context import Context, PartsStatus
from monitor.web.http.access import Access
from monitor.web.http.app import Gate, make_app
from monitor.web.http.attempts import Attempts
from monitor.web.http.connections import Connections
from monitor.web.http.sessions import Sessions
from monitor.web.routes import served
from monitor.web.routes.pages import OPEN_PATHS
from monitor.web.settings import ApiSettings

__all__ = ["calls", "document"]

_METHODS = ("get", "post", "put", "delete")


def document() -> dict[str, Any]:
    """Return the OpenAPI document of a daemon with all parts on."""
    services = assembled()
    parts = {part.name: part for part in services.parts}
    tokens = TokenFile(None)
    context = Context(
        settings=services.config.api or ApiSettings(),
        access=Access(lambda: tokens.current, open_paths=OPEN_PATHS),
        parts=parts,
        status=PartsStatus(parts),
        tokens=tokens,
        sessions=Sessions(tokens),
        attempts=Attempts(),
        store=services.store(),
        topics=TopicLook(services.config.bus, None),
    )
    gate = make_app(
        Connections(context.settings), context.access, context.attempts, served(context).routers
    )
    assert isinstance(gate, Gate)
    app = gate._app
    assert isinstance(app, FastAPI)
    return app.openapi()


def calls() -> str:
    """Return the table of calls."""
    lines = ["| call | parameters | does | answers |", "|---|---|---|---|"]
    for path, methods in sorted(document()["paths"].items()):
        found = [method for method in _METHODS if method in methods]
        lines.extend(_row(path, method, methods[method]) for method in found)
    return "\n".join(lines)


def _row(path: str, method: str, operation: Mapping[str, Any]) -> str:
    statuses = " ".join(_statuses(operation))
    parameters = ", ".join(_parameters(operation))
    return f"| `{method.upper()} {path}` | {parameters} | {operation['summary']} | {statuses} |"


def _parameters(operation: Mapping[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            yield f"`{parameter['name']}`" + (" (required)" if parameter.get("required") else "")
    if "requestBody" in operation:
        yield "a body"


def _statuses(operation: Mapping[str, Any]) -> Iterator[str]:
    # The page lists the statuses of every call once, below the table.
    general = {"304", "400", "401", "403", "405", "413", "422", "431", "500", "503", "default"}
    for status in sorted(operation["responses"]):
        if status not in general:
            yield status
