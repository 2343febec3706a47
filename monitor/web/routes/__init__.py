"""What the server serves: a module for each part, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from monitor.web.context import Context
from monitor.web.http.sockets import Handler
from monitor.web.live.feed import LiveFeed
from monitor.web.routes import absent, health, login, pages

if TYPE_CHECKING:
    from monitor.logs.part import Logs
    from monitor.logs.reader import LogReader
    from monitor.relay.part import Relay
    from monitor.web.jobs.registry import JobRegistry

__all__ = ["Served", "served"]

# If no WebSocket sets a size.
_SMALL_MESSAGE_BYTES = 65536


@dataclass
class Served:
    """Routers, WebSocket handlers by path and their largest message, tasks that run until the
    end, and those that run once, first."""

    routers: list[APIRouter] = field(default_factory=list)
    websockets: dict[str, Handler] = field(default_factory=dict)
    max_message_bytes: int = _SMALL_MESSAGE_BYTES
    tasks: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)
    first: list[Callable[[], Coroutine[Any, Any, None]]] = field(default_factory=list)


def served(context: Context) -> Served:
    """Return what is served.

    Routes are imported in this function, so that a part that is off is not loaded. If a database
    is shared with other daemons, routes of a part that is off are served from its rows.
    """
    parts = context.parts
    found = Served([health.router(context), login.router(context)])
    book = _jobs(context, found)
    if context.store is not None:
        from monitor.web.routes import database

        found.routers.append(database.router(context.store))
        if context.has("aggregation"):
            from monitor.web.routes import history

            async def is_job(job_id: int) -> bool:
                if book is None:
                    return False
                await book.refresh()
                try:
                    book.job(job_id)
                except KeyError:
                    return False
                return True

            if "aggregation" in parts:
                from monitor.aggregation.part import Aggregation
                from monitor.web.routes import rejected

                aggregation = parts["aggregation"]
                assert isinstance(aggregation, Aggregation)
                found.routers.append(history.router(context.store, is_job, aggregation.functions))
                found.routers.append(rejected.router(context.store, lambda: aggregation.settings))
            else:
                found.routers.append(history.router(context.store, is_job))
        if context.has("cluster"):
            from monitor.web.routes import models

            found.routers.append(models.router(context.store))
        if context.has("alerts"):
            from monitor.alerts.part import Alerts
            from monitor.web.routes import alerts

            part = parts.get("alerts")
            assert part is None or isinstance(part, Alerts)
            found.routers.append(alerts.router(context.store, part))
    _public(context, found, book)
    relay: Relay | None = None
    if "relay" in parts:
        from monitor.relay.part import Relay
        from monitor.web.routes import channels

        of_relay = parts["relay"]
        assert isinstance(of_relay, Relay)
        relay = of_relay
        found.routers.append(channels.router(relay))
    logs = _logs(context, found)
    if logs is not None:
        from monitor.web.routes import logs as log_routes

        found.routers.append(log_routes.router(logs))
        found.websockets["/ws"] = log_routes.websocket(logs)
        found.max_message_bytes = logs.service.settings.max_message_bytes
    if context.topics is not None:
        from monitor.web.routes import topics

        found.routers.append(topics.router(context.topics))
    from monitor.web.routes import timeline
    from monitor.web.timeline.reading import TimelineReader

    reader = TimelineReader(context, book=book, relay=relay, logs=logs)
    if reader.lanes:
        found.routers.append(timeline.router(reader))
    live = LiveFeed(context, book=book, relay=relay, logs=logs)
    found.websockets["/live"] = live.serve
    found.tasks += live.tasks()
    if context.settings.website_mock:
        from monitor.web.routes import mock

        found.routers.append(mock.router())
    found.routers += [absent.router(context), pages.router(context)]
    return found


def _public(context: Context, found: Served, book: JobRegistry | None) -> None:
    """Add the public status page, which a reload may turn on."""
    from monitor.web.public.past import Past
    from monitor.web.public.reckoning import PublicBook
    from monitor.web.routes import public

    if book is None:
        found.routers.append(public.router(None))
        return
    past = None
    if context.store is not None:
        from monitor.alerts.part import Alerts

        part = context.parts.get("alerts")
        assert part is None or isinstance(part, Alerts)
        past = Past(
            context.store,
            windows=tuple if part is None else lambda: part.maintenance,
            rules=bool if part is None else lambda: part.watches_sites,
            metrics=context.has("aggregation"),
            alerts=context.has("alerts"),
        )
    shown = PublicBook(book, page=lambda: context.in_force().status_page, past=past)
    found.routers.append(public.router(shown))
    found.tasks.append(shown.run)


def _jobs(context: Context, found: Served) -> JobRegistry | None:
    """Add the jobs of this daemon's probes, or else those in a shared database."""
    store = context.store
    if not context.has("probes"):
        return None
    from monitor.web.jobs.registry import JobRegistry
    from monitor.web.routes import jobs, site_metrics

    if "probes" in context.parts:
        from monitor.probes.part import Probes

        probes = context.parts["probes"]
        assert isinstance(probes, Probes)
        book = JobRegistry(probes, store)
        found.first.append(book.restore_stops)
    else:
        from monitor.web.jobs.shared import SharedJobs

        assert store is not None
        shared = SharedJobs(store)
        book = JobRegistry(shared, store)
        found.tasks.append(shared.run)
    found.routers.append(jobs.router(book, store))
    found.routers.append(site_metrics.router(book))
    if store is not None:
        from monitor.web.routes.heartbeats import Heartbeats

        heartbeats = Heartbeats(book, store, context.attempts)
        found.routers.append(heartbeats.router())
        found.tasks.append(heartbeats.load)
    found.tasks.append(book.run)
    return book


def _logs(context: Context, found: Served) -> Logs | LogReader | None:
    """Return the logs part of this daemon, or else the reader of a shared database."""
    if "logs" in context.parts:
        from monitor.logs.part import Logs

        part = context.parts["logs"]
        assert isinstance(part, Logs)
        return part
    if context.log_reader is not None:
        found.tasks.append(context.log_reader.run)
    return context.log_reader
