"""What the server serves, a module for each part, and the one place that lists them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from monitor.web.context import Context
from monitor.web.routes import health, pages, session
from monitor.web.sockets import Handler

if TYPE_CHECKING:
    from monitor.web.jobs import JobBook

__all__ = ["Served", "served"]

# Where no WebSocket takes messages of its own size.
_SMALL_MESSAGE_BYTES = 65536


@dataclass
class Served:
    """Routers, WebSocket handlers by path, the largest message they take, and what must run."""

    routers: list[APIRouter] = field(default_factory=list)
    websockets: dict[str, Handler] = field(default_factory=dict)
    max_message_bytes: int = _SMALL_MESSAGE_BYTES
    tasks: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)


def served(context: Context) -> Served:
    """Return what is served.

    A module imports its part only in here, so that a part that is off is not loaded. What a
    part that is off would serve is there all the same where a shared database has its rows.
    """
    parts = context.parts
    found = Served([health.router(context), session.router(context.tokens)])
    book: JobBook | None = None
    if "probes" in parts:
        from monitor.probes.part import Probes
        from monitor.web.jobs import JobBook
        from monitor.web.routes import jobs

        probes = parts["probes"]
        assert isinstance(probes, Probes)
        book = JobBook(probes, context.store)
        found.routers.append(jobs.router(book))
        found.tasks.append(book.run)
    if context.store is not None:
        from monitor.web.routes import database

        found.routers.append(database.router(context.store))
        if context.has("aggregation"):
            from monitor.web.routes import history

            found.routers.append(history.router(context.store))
        if context.has("cluster"):
            from monitor.web.routes import models

            found.routers.append(models.router(context.store))
    if "relay" in parts:
        from monitor.relay.part import Relay
        from monitor.web.routes import channels

        relay = parts["relay"]
        assert isinstance(relay, Relay)
        found.routers.append(channels.router(relay))
    if "logs" in parts:
        from monitor.logs.part import Logs
        from monitor.web.routes import logs

        part = parts["logs"]
        assert isinstance(part, Logs)
        found.routers.append(logs.router(part))
        found.websockets["/ws"] = logs.websocket(part)
        found.max_message_bytes = part.service.settings.max_message_bytes
    if context.settings.website_mock:
        from monitor.web.routes import mock

        found.routers.append(mock.router())
    found.routers.append(pages.router(context))
    return found
