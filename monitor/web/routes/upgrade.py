"""The answer to a plain GET of a WebSocket's path."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter

from monitor.web.http.problems import Problem

__all__ = ["router"]


def router(paths: Iterable[str]) -> APIRouter:
    """Return routes that answer each of ``paths`` with 426 (RFC 9110, 15.5.22)."""
    routes = APIRouter()
    for path in paths:
        routes.add_api_route(path, _upgrade_required, methods=["GET"], include_in_schema=False)
    return routes


async def _upgrade_required() -> None:
    raise Problem(
        426,
        "this is a WebSocket: a request needs `Connection: Upgrade` and `Upgrade: websocket`, and a"
        " proxy in front must pass on both",
        # Upgrade concerns only this connection, so Connection must name it (RFC 9110, 7.8).
        headers={"upgrade": "websocket", "connection": "upgrade"},
    )
