"""Results and metrics of jobs, from the database."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response

from monitor.aggregation.windows import WIDTHS_S, window_start
from monitor.messages import Result
from monitor.store import Connection, Store
from monitor.store.cursor import Text, Time, cursor_of
from monitor.web.http.answers import item_list, json_answer, parse_cursor
from monitor.web.http.parameters import known_parameters
from monitor.web.http.problems import NOT_FOUND, from_database
from monitor.web.http.schemas import answer, listed
from monitor.web.jobs.history import (
    MetricWindow,
    Uptime,
    has_history,
    metric_windows,
    results_before,
    uptimes,
)
from monitor.web.jobs.uptime import JobUptime, job_uptimes
from monitor.web.routes.jobs import JobId, no_job

__all__ = ["Instant", "read", "router"]

T = TypeVar("T")

_QUERY_TIMEOUT_S = 10.0
_MOST = 10_000
_MOST_JOBS = 200

# The limit of calendars and databases.
Instant = Annotated[float, Query(ge=0, lt=253402300800)]
# None: all of them.
Location = Annotated[str | None, Query(max_length=100, pattern=r"^[^\x00]*$")]
Granularity = Literal["minute", "hour", "day"]


async def read(store: Store, function: Callable[[Connection], T]) -> T:
    """Read from the database; raise an error as a problem with status 503."""
    with from_database():
        return await store.read(function, timeout=_QUERY_TIMEOUT_S)


def router(
    store: Store,
    is_job: Callable[[int], Awaitable[bool]],
    functions: Callable[[], Mapping[str, Sequence[str]]] = dict,
) -> APIRouter:
    """Return the routes over the tables that the aggregation writes.

    ``is_job`` returns whether there is a job of an id, as far as that is known here, and
    ``functions`` those to compute of each measured field.
    """
    routes = APIRouter(tags=["jobs"], dependencies=[Depends(known_parameters)])

    async def require_known(job_id: int) -> None:
        """Raise a Problem if no job, result or metric has the id."""
        with from_database():
            known = await is_job(job_id)
        if not known and not await read(store, lambda found: has_history(found, job_id)):
            raise no_job(job_id)

    @routes.get(
        "/job/{job_id}/result",
        summary="Raw results of a job, newest first",
        response_class=Response,
        responses={**listed(Result, "A page of results"), **NOT_FOUND},
    )
    async def results(
        request: Request,
        job_id: JobId,
        *,
        since: Instant = 0.0,
        until: Instant | None = None,
        limit: Annotated[int, Query(ge=1, le=_MOST)] = 1000,
        cursor: str | None = None,
        location: Location = None,
    ) -> Response:
        before = None if cursor is None else parse_cursor(cursor, tuple[Time, Text])
        end = time.time() + 60 if until is None else until
        found = await read(
            store,
            lambda connection: results_before(
                connection,
                job_id,
                since=since,
                until=end,
                before=before,
                limit=limit + 1,
                location=location,
            ),
        )
        if not found:
            await require_known(job_id)
        items = found[:limit]
        more = None
        if len(found) > limit:
            more = cursor_of(items[-1].scheduled_at, items[-1].location)
        return item_list(request, items, more)

    @routes.get(
        "/job/{job_id}/metric",
        summary="Metrics of a job by window, oldest first; windows without checks are omitted",
        response_class=Response,
        responses={**listed(MetricWindow, "A page of windows"), **NOT_FOUND},
    )
    async def metrics(
        request: Request,
        job_id: JobId,
        *,
        granularity: Granularity = "minute",
        since: Instant | None = None,
        until: Instant | None = None,
        limit: Annotated[int, Query(ge=1, le=_MOST)] = 1000,
        cursor: str | None = None,
        location: Location = None,
    ) -> Response:
        width = WIDTHS_S[granularity]
        end = time.time() + 60 if until is None else until
        begin = window_start(end, granularity) - 89 * width if since is None else since
        if cursor is not None:
            begin = max(begin, parse_cursor(cursor, tuple[Time])[0])
        found = await read(
            store,
            lambda connection: metric_windows(
                connection,
                job_id,
                granularity,
                since=max(0, begin),
                until=end,
                limit=limit + 1,
                functions=functions(),
                location=location,
            ),
        )
        if not found:
            await require_known(job_id)
        items = found[:limit]
        more = cursor_of(found[limit].start) if len(found) > limit else None
        return item_list(request, items, more)

    @routes.get(
        "/job/{job_id}/uptime",
        summary="The share of time in which a job was up: 24 h, 7, 30 and 90 days",
        response_class=Response,
        responses={
            **answer(JobUptime, "The uptime by time; a share is null without checks"),
            **NOT_FOUND,
        },
    )
    async def uptime_by_time(request: Request, job_id: JobId) -> Response:
        found = await read(
            store, lambda connection: job_uptimes(connection, [job_id], now=time.time())
        )
        if not any(span.checks for span in found[0].spans.values()):
            await require_known(job_id)
        return json_answer(request, found[0])

    @routes.get(
        "/uptime",
        summary="Checks and failures of several jobs in their last windows, for uptime bars",
        response_class=Response,
        responses=listed(Uptime, "One item per job, in the order of the request"),
    )
    async def uptime(
        request: Request,
        job: Annotated[
            list[Annotated[int, Query(ge=1, le=2**63 - 1)]],
            Query(min_length=1, max_length=_MOST_JOBS),
        ],
        granularity: Granularity = "minute",
        windows: Annotated[int, Query(ge=1, le=200)] = 90,
    ) -> Response:
        found = await read(
            store,
            lambda connection: uptimes(
                connection, job, granularity, windows=windows, now=time.time()
            ),
        )
        return item_list(request, found, None)

    return routes
