"""What the server serves, a module for each part, and the one place that lists them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from monitor.web.context import Context
from monitor.web.live import LiveFeed
from monitor.web.routes import health, pages, session
from monitor.web.sockets import Handler

if TYPE_CHECKING:
    from monitor.logs.part import Logs
    from monitor.relay.part import Relay
    from monitor.web.jobs import JobBook

__all__ = ["Served", "served"]

# Where no WebSocket takes messages of its own size.
_SMALL_MESSAGE_BYTES = 65536


@dataclass
class Served:
    """Routers, WebSocket handlers by path, the largest message they take; what must run
    once before anything does, and what until the end."""

    routers: list[APIRouter] = field(default_factory=list)
    websockets: dict[str, Handler] = field(default_factory=dict)
    max_message_bytes: int = _SMALL_MESSAGE_BYTES
    tasks: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    first: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)


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
        found.first.append(book.restore_stops)
    if context.store is not None:
        from monitor.web.routes import database

        found.routers.append(database.router(context.store))
        if context.has("aggregation"):
            from monitor.web.routes import history

            found.routers.append(history.router(context.store))
        if context.has("cluster"):
            from monitor.web.routes import models

            found.routers.append(models.router(context.store))
    relay: Relay | None = None
    if "relay" in parts:
        from monitor.relay.part import Relay
        from monitor.web.routes import channels

        of_relay = parts["relay"]
        assert isinstance(of_relay, Relay)
        relay = of_relay
        found.routers.append(channels.router(relay))
    logs: Logs | None = None
    if "logs" in parts:
        from monitor.logs.part import Logs
        from monitor.web.routes import logs as log_routes

        of_logs = parts["logs"]
        assert isinstance(of_logs, Logs)
        logs = of_logs
        found.routers.append(log_routes.router(logs))
        found.websockets["/ws"] = log_routes.websocket(logs)
        found.max_message_bytes = logs.service.settings.max_message_bytes
    live = LiveFeed(context, book=book, relay=relay, logs=logs)
    found.websockets["/live"] = live.serve
    found.tasks.append(live.run)
    if context.settings.website_mock:
        from monitor.web.routes import mock

        found.routers.append(mock.router())
    found.routers.append(pages.router(context))
    return found
