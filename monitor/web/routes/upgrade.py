"""What a plain GET of a WebSocket's path is told."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter

from monitor.web.http.problems import Problem

__all__ = ["router"]


def router(paths: Iterable[str]) -> APIRouter:
    """Return routes that answer 426 at each of ``paths`` (RFC 9110, 15.5.22)."""
    routes = APIRouter()
    for path in paths:
        routes.add_api_route(path, _upgrade_required, methods=["GET"], include_in_schema=False)
    return routes


async def _upgrade_required() -> None:
    raise Problem(
        426,
        "this is a WebSocket: a request for it has `Connection: Upgrade` and `Upgrade: websocket`,"
        " both of which a proxy in front must pass on",
        # Upgrade is for this connection alone, and has to be named so (RFC 9110, 7.8).
        headers={"upgrade": "websocket", "connection": "upgrade"},
    )
