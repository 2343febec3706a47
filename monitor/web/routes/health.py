"""GET /healthz, /readyz and /metrics: for supervisors, load balancers and Prometheus."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from monitor.errors import MonitorError
from monitor.part import Health as PartHealth
from monitor.store import Store
from monitor.tokens import Principal
from monitor.web.context import Context
from monitor.web.http.problems import ERRORS, problem_response
from monitor.web.routes.exposition import Exposition

__all__ = ["router"]

# A database that takes longer to answer counts as unavailable.
_DATABASE_S = 2.0
# What a client without a token learns about a part.
_WORDS = {PartHealth.DEGRADED: "it has a problem; with a token you see which"}
# For how long a result about the database is valid; several clients may ask at once.
_KEEP_S = 1.0


class PartState(BaseModel):
    """The state of one part; the summary has details only for clients with a token."""

    health: str
    summary: str


class Health(BaseModel):
    """The state of the daemon: ``degraded`` if a part or the bus is."""

    status: Literal["ok", "degraded"]
    parts: dict[str, PartState]


def router(context: Context) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["health"])
    database = None if context.store is None else _Database(context.store)
    exposition = Exposition(context.status)

    @routes.get("/healthz", summary="Whether the daemon runs, with the state of each part")
    async def healthz(request: Request) -> Health:
        parts = _parts(context, request)
        degraded = any(part.health == PartHealth.DEGRADED for part in parts.values())
        return Health(status="degraded" if degraded else "ok", parts=parts)

    @routes.get(
        "/readyz",
        summary="Whether the daemon is ready: started, not stopping, its database available",
        response_model=Health,
    )
    async def readyz(request: Request) -> Any:
        status = context.status
        reasons = []
        if status.draining:
            reasons.append("the daemon is stopping")
        elif not status.ready:
            reasons.append("the daemon is starting")
        problem = None if database is None else await database.problem()
        if problem is not None:
            reasons.append(problem if _may_know(request) else "the database is unavailable")
        found = _parts(context, request)
        if not reasons:
            return Health(status="ok", parts=found)
        parts = {name: state.model_dump() for name, state in found.items()}
        return problem_response(503, "; ".join(reasons), reasons=reasons, parts=parts)

    @routes.get(
        "/metrics",
        summary="Metrics in Prometheus' text format, or in OpenMetrics if Accept asks for it",
        response_class=Response,
        responses={
            **ERRORS,
            200: {
                "description": "The metrics",
                "content": {
                    "text/plain": {"schema": {"type": "string"}},
                    "application/openmetrics-text": {"schema": {"type": "string"}},
                },
            },
        },
    )
    async def metrics(request: Request) -> Response:
        body, media_type = exposition.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": media_type})

    return routes


def _may_know(request: Request) -> bool:
    """Return whether the client has a token that may read: texts may name servers and accounts."""
    principal: Principal | None = request.scope["principal"]
    return principal is not None and principal.may_read


def _parts(context: Context, request: Request) -> dict[str, PartState]:
    full = _may_know(request)
    return {
        name: PartState(
            health=state.health, summary=state.summary if full else _WORDS.get(state.health, "")
        )
        for name, state in context.status.states().items()
    }


class _Database:
    """Checks whether the database is available, at most once a second."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked_at = -_KEEP_S
        self._problem: str | None = None
        self._lock = asyncio.Lock()

    async def problem(self) -> str | None:
        """Return what is wrong, or None."""
        async with self._lock:
            if time.monotonic() - self._asked_at >= _KEEP_S:
                try:
                    await self._store.read(lambda c: c.query("SELECT 1"), timeout=_DATABASE_S)
                    self._problem = None
                except MonitorError as error:
                    self._problem = str(error)
                self._asked_at = time.monotonic()
            return self._problem
