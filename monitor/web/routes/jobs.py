"""Jobs: list, show, start, stop; and create, change, delete, if they are in the database."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from monitor import messages
from monitor.files.threads import call_aside
from monitor.messages import Result
from monitor.probes.beats import NoBeatYetError
from monitor.probes.checks import DEFAULT_KIND, AnyJob
from monitor.probes.no_result import NoResultError
from monitor.store import Store
from monitor.store.cursor import Number, cursor_of
from monitor.web.http.answers import conditional, parse_cursor
from monitor.web.http.app import audited
from monitor.web.http.parameters import known_parameters
from monitor.web.http.problems import CONFLICT, NOT_FOUND, Problem, from_database
from monitor.web.http.schemas import JSON, answer, body, listed
from monitor.web.jobs.entries import JobEntry, JobState
from monitor.web.jobs.registry import JobRegistry
from monitor.web.jobs.sites import Sites
from monitor.web.routes.job_bodies import (
    changed_keys,
    given_keys,
    require_dependencies,
    verified_job,
)
from monitor.web.routes.job_editing import JobId, add_editing, no_job
from monitor.web.routes.job_import import add_import

__all__ = ["JobId", "no_job", "router"]

_MOST = 10_000
# The limit of calendars and databases.
Instant = Annotated[float, Query(ge=0, lt=253402300800)]
# For checking a job before it gets its id.
_SOME_ID = 2**53

ANY_KEYS = {"requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}}}}


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

    async def replaced(
        request: Request, sites: Sites, before: AnyJob | None, keys: dict[str, Any]
    ) -> Response:
        job = await call_aside(verified_job, keys)
        with from_database():
            await require_dependencies(book, job)
            if not await sites.save(job, known=True):
                raise no_job(job.id)
        audited(request, f"changed job {job.id}: {changed_keys(before, job)}")
        return Response(_entry(book, job.id), media_type=JSON)

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
        # Before the page, which may take in what changes meanwhile.
        etag = f'"{book.epoch}-{book.version}-{after}-{limit}-{state or ""}"'
        items, more = await book.page(after=after, limit=limit, state=state)
        tail = "null" if more is None else f'"{cursor_of(more)}"'
        content = b'{"items":[%b],"cursor":%b}' % (b",".join(items), tail.encode())
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
        given = await given_keys(request)
        await _refresh(book)
        with from_database():
            job = await call_aside(verified_job, {"id": _SOME_ID, **given})
            if "id" not in given:
                job = job.replace(id=await sites.next_id())
            elif job.id not in book and await sites.was_used(job.id):
                raise Problem(409, f"there are results of a former job {job.id}: leave out the id")
            await require_dependencies(book, job)
            if not await sites.save(job, known=False):
                raise Problem(409, f"job {job.id} exists already")
        audited(request, f"created job {job.id}")
        location = {"location": f"/job/{job.id}"}
        entry = _entry(book, job.id)
        if job.kind == "heartbeat":
            with from_database():
                entry = entry[:-1] + b',"key":"%b"}' % (await sites.new_key(job.id)).encode()
        return Response(entry, 201, media_type=JSON, headers=location)

    @routes.put(
        "/job/{job_id}",
        summary="Change a job: omitted keys get their defaults",
        response_class=Response,
        responses={**answer(JobEntry, "The job"), **NOT_FOUND, **CONFLICT},
        openapi_extra=body(AnyJob, optional=("id",), default_tag=DEFAULT_KIND),
    )
    async def change(request: Request, job_id: JobId) -> Response:
        sites = changeable()
        given = await given_keys(request)
        if given.setdefault("id", job_id) != job_id:
            raise Problem(422, "body.id: not the id in the path; a job keeps its id")
        await _refresh(book)
        before = book.job(job_id) if job_id in book else None
        return await replaced(request, sites, before, given)

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
        summary="Stop a job, over restarts, too, until a time or until it is started",
        response_class=Response,
        responses={**answer(JobEntry, "The job, stopped"), **NOT_FOUND, **CONFLICT},
    )
    async def stop(job_id: JobId, until: Instant | None = None) -> Response:
        if until is not None and until <= time.time():
            raise Problem(422, "query.until: must be in the future")
        return await _switch(book, job_id, running=False, until=until)

    @routes.patch(
        "/job/{job_id}",
        summary="Change some keys of a job; null sets a key back to its default",
        response_class=Response,
        responses={**answer(JobEntry, "The job"), **NOT_FOUND, **CONFLICT},
        openapi_extra=ANY_KEYS,
    )
    async def change_some(request: Request, job_id: JobId) -> Response:
        sites = changeable()
        given = await given_keys(request)
        await _refresh(book)
        try:
            before = book.job(job_id)
        except KeyError:
            raise no_job(job_id) from None
        keys = {**msgspec.to_builtins(before), **given}
        if keys["id"] != job_id:
            raise Problem(422, "body.id: not the id in the path; a job keeps its id")
        if keys["kind"] != before.kind:
            raise Problem(422, "body.kind: use PUT with all keys of the other kind")
        keys = {key: value for key, value in keys.items() if value is not None}
        return await replaced(request, sites, before, keys)

    @routes.post(
        "/job/{job_id}/check",
        summary="Check a job now, off its grid, and return the result",
        response_class=Response,
        responses={**answer(Result, "The result"), **NOT_FOUND, **CONFLICT},
    )
    async def check(request: Request, job_id: JobId) -> Response:
        await _refresh(book)
        try:
            job = book.job(job_id)
        except KeyError:
            raise no_job(job_id) from None
        if not job.active:
            raise Problem(409, f"job {job_id} is not active")
        runner = book.probes.runner
        if runner is None or job_id not in runner:
            if book.is_stopped(job_id):
                raise Problem(409, f"job {job_id} is stopped")
            raise Problem(409, f"job {job_id} is checked by another daemon: ask that one")
        audited(request, f"checked job {job_id}")
        try:
            result = await runner.check_now(job_id)
        except NoBeatYetError as error:
            raise Problem(409, str(error)) from None
        except NoResultError as error:
            raise Problem(503, str(error)) from None
        return Response(messages.encode(result), media_type=JSON)

    add_editing(routes, book, changeable)
    add_import(routes, book, changeable)
    return routes


def _entry(book: JobRegistry, job_id: int) -> bytes:
    try:
        return book.encoded(job_id)
    except KeyError:
        raise no_job(job_id) from None


async def _refresh(book: JobRegistry) -> None:
    with from_database():
        await book.refresh()


async def _switch(
    book: JobRegistry, job_id: int, *, running: bool, until: float | None = None
) -> Response:
    await _refresh(book)
    try:
        job = book.job(job_id)
        with from_database():
            done = await (book.start(job_id) if running else book.stop(job_id, until))
    except KeyError:
        raise no_job(job_id) from None
    if not done:
        state = book.entry(job_id).state
        if state == "inactive" or not (job.active or state == "stopped"):
            raise Problem(409, f"job {job_id} is not active")
        raise Problem(409, f"job {job_id} is already {'started' if running else 'stopped'}")
    return Response(book.encoded(job_id), media_type=JSON)
