"""What the server serves, a module for each part, and the one place that lists them."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from monitor.part import Part
from monitor.web.routes import health
from monitor.web.sockets import Handler

__all__ = ["served"]

# Where no WebSocket takes messages of its own size.
_SMALL_MESSAGE_BYTES = 65536


def served(parts: Mapping[str, Part]) -> tuple[list[APIRouter], dict[str, Handler], int]:
    """Return the routers, the WebSocket handlers by path, and the largest message they take.

    ``parts`` are the parts that are on, by name. A module imports its part only in here, so
    that a part that is off is not loaded.
    """
    routers = [health.router(parts)]
    websockets: dict[str, Handler] = {}
    max_message_bytes = _SMALL_MESSAGE_BYTES
    if "logs" in parts:
        from monitor.logs.part import Logs
        from monitor.web.routes import logs

        part = parts["logs"]
        assert isinstance(part, Logs)
        routers.append(logs.router(part))
        websockets["/ws"] = logs.websocket(part)
        max_message_bytes = part.service.settings.max_message_bytes
    return routers, websockets, max_message_bytes
