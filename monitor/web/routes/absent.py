"""Calls of parts that are off: 404, with what turns them on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter

from monitor.web.context import Context
from monitor.web.http.problems import Problem

__all__ = ["router"]

# The calls of each part begin with one of these.
_CALLS = {
    "aggregation": (
        "/job/{job_id}/result",
        "/job/{job_id}/metric",
        "/job/{job_id}/uptime",
        "/uptime",
        "/rejected",
    ),
    "probes": ("/job", "/job-kind", "/metrics/probes", "/heartbeat"),
    "cluster": ("/model", "/model-update"),
    "logs": ("/log", "/notification"),
    "alerts": ("/incident", "/silence", "/maintenance", "/alert"),
    "relay": ("/channel",),
}
_METHODS = ["GET", "POST", "PUT", "DELETE"]


def router(context: Context) -> APIRouter:
    """Return the routes; they come after those of the parts that are on."""
    routes = APIRouter()
    for part, calls in _CALLS.items():
        if part in context.parts:
            continue
        off = _off(f"the part {part}", f"a section {part}")
        for call in calls:
            for path in (call, f"{call}/{{rest:path}}"):
                routes.add_api_route(path, off, methods=_METHODS, include_in_schema=False)
    if not context.settings.website_mock:
        off = _off("website_mock", "api.website_mock: true")
        routes.add_api_route("/website_mock", off, include_in_schema=False)
    return routes


def _off(what: str, key: str) -> Callable[[], Awaitable[None]]:
    async def off() -> None:
        raise Problem(404, f"{what} is off; {key} in the config turns it on")

    return off
