"""Jobs: list, show, start, stop; and create, change, delete, if they are in the database."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from monitor.errors import SettingError
from monitor.files.threads import call_aside
from monitor.probes.checks import DEFAULT_KIND, AnyJob, read_job
from monitor.probes.job import Job
from monitor.store import Store
from monitor.store.cursor import Number, cursor_of
from monitor.validation import decoding_problem
from monitor.web.http.answers import conditional, parse_cursor
from monitor.web.http.parameters import known_parameters
from monitor.web.http.problems import CONFLICT, NOT_FOUND, Problem, from_database
from monitor.web.http.schemas import JSON, answer, body, listed
from monitor.web.jobs.registry import JobEntry, JobRegistry, JobState
from monitor.web.jobs.sites import Sites

__all__ = ["JobId", "no_job", "router"]

_MOST = 10_000

JobId = Annotated[int, Path(ge=1, le=2**63 - 1)]


def no_job(job_id: int) -> Problem:
    """Return the problem for an unknown job."""
    return Problem(404, f"there is no job {job_id}")


def router(book: JobRegistry, store: Store | None) -> APIRouter:
    """Return the routes for the jobs of a registry.

    ``store`` is where sites are changed, if the jobs come from the database.
    """
    in_database = None if store is None else Sites(store, book)

    def changeable() -> Sites:
        source = book.probes.source
        if source != "database":
            raise Problem(409, f"jobs come from the {source}: change them there")
        assert in_database is not None
        return in_database

    routes = APIRouter(tags=["jobs"], dependencies=[Depends(known_parameters)])

    @routes.get(
        "/job",
        summary="Jobs with state, last result and next run, in the order of their ids",
        response_class=Response,
        responses=listed(JobEntry, "A page of jobs"),
    )
    async def jobs(
        request: Request,
        state: JobState | None = None,
        limit: Annotated[int, Query(ge=1, le=_MOST)] = 1000,
        cursor: str | None = None,
    ) -> Response:
        after = 0 if cursor is None else parse_cursor(cursor, tuple[Number])[0]
        await _refresh(book)
        items, more = book.page(after=after, limit=limit, state=state)
        tail = "null" if more is None else f'"{cursor_of(more)}"'
        content = b'{"items":[%b],"cursor":%b}' % (b",".join(items), tail.encode())
        etag = f'"{book.epoch}-{book.version}-{after}-{limit}-{state or ""}"'
        return conditional(request, content, JSON, etag=etag)

    @routes.get(
        "/job/{job_id}",
        summary="A job with state, last result and next run",
        response_class=Response,
        responses={**answer(JobEntry, "The job"), **NOT_FOUND},
    )
    async def job(request: Request, job_id: JobId) -> Response:
        await _refresh(book)
        return conditional(request, _entry(book, job_id), JSON)

    @routes.post(
        "/job",
        summary="Create a job, if jobs come from the database",
        status_code=201,
        response_class=Response,
        responses={201: answer(JobEntry, "The job")[200], **CONFLICT},
        openapi_extra=body(AnyJob, optional=("id",), default_tag=DEFAULT_KIND),
    )
    async def create(request: Request) -> Response:
        sites = changeable()
        given = await _given(request)
        await _refresh(book)
        with from_database():
            if "id" not in given:
                given["id"] = await sites.next_id()
            job = await call_aside(_job, given)
            if not await sites.save(job, known=False):
                raise Problem(409, f"job {job.id} exists already")
        location = {"location": f"/job/{job.id}"}
        return Response(_entry(book, job.id), 201, media_type=JSON, headers=location)

    @routes.put(
        "/job/{job_id}",
        summary="Change a job: omitted keys get their defaults",
        response_class=Response,
        responses={**answer(JobEntry, "The job"), **NOT_FOUND, **CONFLICT},
        openapi_extra=body(AnyJob, optional=("id",), default_tag=DEFAULT_KIND),
    )
    async def change(request: Request, job_id: JobId) -> Response:
        sites = changeable()
        given = await _given(request)
        if given.setdefault("id", job_id) != job_id:
            raise Problem(422, "body.id: not the id in the path; a job keeps its id")
        await _refresh(book)
        with from_database():
            if not await sites.save(await call_aside(_job, given), known=True):
                raise no_job(job_id)
        return Response(_entry(book, job_id), media_type=JSON)

    @routes.delete(
        "/job/{job_id}",
        summary="Delete a job; its results stay as long as others",
        status_code=204,
        response_class=Response,
        responses={**NOT_FOUND, **CONFLICT},
    )
    async def delete(job_id: JobId) -> Response:
        sites = changeable()
        await _refresh(book)
        with from_database():
            deleted = await sites.delete(job_id)
        if not deleted:
            raise no_job(job_id)
        return Response(status_code=204)

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
        summary="Stop a job until it is started, over restarts, too",
        response_class=Response,
        responses={**answer(JobEntry, "The job, stopped"), **NOT_FOUND, **CONFLICT},
    )
    async def stop(job_id: JobId) -> Response:
        return await _switch(book, job_id, running=False)

    return routes


async def _given(request: Request) -> dict[str, Any]:
    try:
        return dict(msgspec.json.decode(await request.body(), type=dict[str, Any]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(422, f"body: {decoding_problem(error)}") from None


def _job(given: dict[str, Any]) -> Job:
    """Return the verified job; raise Problem for anything that is wrong with it.

    Blocks: it reads files, and compiles an expression.
    """
    try:
        return read_job(given)
    except SettingError as error:
        raise Problem(422, str(error.under("body"))) from None


def _entry(book: JobRegistry, job_id: int) -> bytes:
    try:
        return book.encoded(job_id)
    except KeyError:
        raise no_job(job_id) from None


async def _refresh(book: JobRegistry) -> None:
    with from_database():
        await book.refresh()


async def _switch(book: JobRegistry, job_id: int, *, running: bool) -> Response:
    await _refresh(book)
    try:
        job = book.job(job_id)
        with from_database():
            done = await (book.start(job_id) if running else book.stop(job_id))
    except KeyError:
        raise no_job(job_id) from None
    if not done:
        state = book.entry(job_id).state
        if state == "inactive" or not (job.active or state == "stopped"):
            raise Problem(409, f"job {job_id} is not active")
        raise Problem(409, f"job {job_id} is already {'started' if running else 'stopped'}")
    return Response(book.encoded(job_id), media_type=JSON)
