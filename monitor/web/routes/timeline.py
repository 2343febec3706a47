"""GET /timeline: what happened in a range of time, on one clock."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from monitor.web.http.answers import json_answer
from monitor.web.http.parameters import known_parameters
from monitor.web.http.problems import Problem
from monitor.web.http.schemas import answer
from monitor.web.routes.history import Instant
from monitor.web.timeline.events import Timeline
from monitor.web.timeline.reading import Range, TimelineReader

__all__ = ["router"]

_DAY_S = 86400.0
_LONGEST_S = 400 * _DAY_S
_Text = Annotated[str | None, Query(min_length=1, max_length=300, pattern=r"^[^\x00]*$")]


def router(reader: TimelineReader) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["timeline"], dependencies=[Depends(known_parameters)])

    @routes.get(
        "/timeline",
        summary="Incidents, rollouts, errors in logs, gaps of the feed and maintenance of a range",
        response_class=Response,
        responses=answer(Timeline, "The events, oldest first"),
    )
    async def timeline(
        request: Request,
        *,
        span: Annotated[float, Query(ge=1, le=_LONGEST_S)] = _DAY_S,
        until: Instant | None = None,
        job: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
        model: _Text = None,
        sender: _Text = None,
    ) -> Response:
        found = await reader.read(Range(span, until, job, model, sender))
        if found.unread and len(found.unread) == len(reader.lanes):
            raise Problem(503, "the database is unavailable", headers={"retry-after": "5"})
        return json_answer(request, found)

    return routes
