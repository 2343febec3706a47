"""Jobs: list, show, start, stop; and where they come from the database create, change, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from monitor.errors import MonitorError
from monitor.web.answers import conditional, cursor_of, parse_cursor
from monitor.web.jobs import JobBook, JobEntry
from monitor.web.problems import CONFLICT, NOT_FOUND, Problem
from monitor.web.schemas import JSON, answer, listed

__all__ = ["JobId", "no_job", "router"]

_MOST = 10_000

JobId = Annotated[int, Path(ge=1, le=2**63 - 1)]


def no_job(job_id: int) -> Problem:
    """Return the problem of a job that is not there."""
    return Problem(404, f"there is no job {job_id}")


def router(book: JobBook) -> APIRouter:
    """Return the routes over the jobs of this daemon's probes."""
    routes = APIRouter(tags=["jobs"])

    @routes.get(
        "/job",
        summary="Jobs with state, last result and next run, in the order of their ids",
        response_class=Response,
        responses=listed(JobEntry, "A page of jobs"),
    )
    async def jobs(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=_MOST)] = 1000,
        cursor: str | None = None,
    ) -> Response:
        after = 0 if cursor is None else parse_cursor(cursor, tuple[int])[0]
        items, more = book.page(after=after, limit=limit)
        tail = "null" if more is None else f'"{cursor_of(more)}"'
        body = b'{"items":[%b],"cursor":%b}' % (b",".join(map(bytes, items)), tail.encode())
        etag = f'"{book.epoch}-{book.version}-{after}-{limit}"'
        return conditional(request, body, JSON, etag=etag)

    @routes.get(
        "/job/{job_id}",
        summary="A job with state, last result and next run",
        response_class=Response,
        responses={**answer(JobEntry, "The job"), **NOT_FOUND},
    )
    async def job(request: Request, job_id: JobId) -> Response:
        return conditional(request, _entry(book, job_id), JSON)

    @routes.post(
        "/job/{job_id}/start",
        summary="Start a job that was stopped by hand",
        response_class=Response,
        responses={**answer(JobEntry, "The job, started"), **NOT_FOUND, **CONFLICT},
    )
    async def start(job_id: JobId) -> Response:
        return await _switch(book, job_id, running=True)

    @routes.post(
        "/job/{job_id}/stop",
        summary="Stop a job, also for after a restart",
        response_class=Response,
        responses={**answer(JobEntry, "The job, stopped"), **NOT_FOUND, **CONFLICT},
    )
    async def stop(job_id: JobId) -> Response:
        return await _switch(book, job_id, running=False)

    return routes


def _entry(book: JobBook, job_id: int) -> bytes:
    try:
        return book.encoded(job_id)
    except KeyError:
        raise no_job(job_id) from None


async def _switch(book: JobBook, job_id: int, *, running: bool) -> Response:
    _entry(book, job_id)
    try:
        done = await (book.start(job_id) if running else book.stop(job_id))
    except KeyError:
        job = book.job(job_id)
        why = "another producer checks it" if job.active else "it is not active"
        raise Problem(409, f"job {job_id} does not run here: {why}") from None
    except MonitorError as error:
        raise Problem(503, str(error), headers={"retry-after": "5"}) from None
    if not done:
        word = "started" if running else "stopped"
        raise Problem(409, f"job {job_id} is {word} already")
    return Response(book.encoded(job_id), media_type=JSON)
