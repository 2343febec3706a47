"""What forms need to edit jobs: the keys of each kind, those of a job, copying, undoing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BeforeValidator

from monitor.files.threads import call_aside
from monitor.web.http.answers import json_answer
from monitor.web.http.app import admin_only, audited
from monitor.web.http.problems import CONFLICT, NOT_FOUND, Problem, from_database
from monitor.web.http.schemas import JSON, answer
from monitor.web.jobs.entries import JobEntry
from monitor.web.jobs.keys import JobKeys, JobKind, job_keys, kinds
from monitor.web.jobs.registry import JobRegistry
from monitor.web.jobs.sites import Sites
from monitor.web.routes.job_bodies import given_keys, require_dependencies, verified_job

__all__ = ["JobId", "add_editing", "no_job"]


def _digits(text: object) -> object:
    # Pydantic takes 1.0, +1 and 1_0, too: one job would have many paths.
    if isinstance(text, str) and not (text.isascii() and text.isdigit()):
        raise ValueError("expected an integer, in digits")
    return text


JobId = Annotated[int, Path(ge=1, le=2**63 - 1), BeforeValidator(_digits)]
_ANY_KEYS = {"requestBody": {"required": True, "content": {JSON: {"schema": {"type": "object"}}}}}


class JobKinds(msgspec.Struct, frozen=True, kw_only=True):
    """The kinds of checks; ``source`` says where jobs come from: a database can be changed."""

    source: str
    changeable: bool
    kinds: list[JobKind]


def no_job(job_id: int) -> Problem:
    """Return the problem for an unknown job."""
    return Problem(404, f"there is no job {job_id}")


def add_editing(routes: APIRouter, book: JobRegistry, changeable: Callable[[], Sites]) -> None:
    """Add the routes; ``changeable`` returns the sites, or raises a Problem that says why not."""

    @routes.get(
        "/job-kind",
        summary="The kinds of checks, each with a JSON schema of its keys",
        response_class=Response,
        responses=answer(JobKinds, "The kinds"),
    )
    async def all_kinds(request: Request) -> Response:
        source = book.probes.source
        found = await call_aside(kinds)
        return json_answer(
            request, JobKinds(source=source, changeable=source == "database", kinds=found)
        )

    @routes.get(
        "/job/{job_id}/keys",
        summary="The keys of a job as a form shows them, without secrets; for admins",
        response_class=Response,
        responses={**answer(JobKeys, "The keys"), **NOT_FOUND},
        dependencies=[Depends(admin_only)],
    )
    async def keys(request: Request, job_id: JobId) -> Response:
        with from_database():
            await book.refresh()
        try:
            return json_answer(request, job_keys(book.job(job_id)))
        except KeyError:
            raise no_job(job_id) from None

    @routes.post(
        "/job/{job_id}/copy",
        summary="Create a job like another one; the keys in the body are different",
        status_code=201,
        response_class=Response,
        responses={201: answer(JobEntry, "The new job")[200], **NOT_FOUND, **CONFLICT},
        openapi_extra=_ANY_KEYS,
    )
    async def copy(request: Request, job_id: JobId) -> Response:
        sites = changeable()
        given = await given_keys(request)
        try:
            former = book.job(job_id)
        except KeyError:
            raise no_job(job_id) from None
        for key in ("id", "kind"):
            if key in given and given[key] != getattr(former, key):
                raise Problem(422, f"body.{key}: a copy gets an id of its own, and the same kind")
        merged: dict[str, Any] = {**msgspec.to_builtins(former), **given}
        merged = {key: value for key, value in merged.items() if value is not None}
        with from_database():
            job = await call_aside(verified_job, merged)
            job = job.replace(id=await sites.next_id())
            await require_dependencies(book, job)
            if not await sites.save(job, known=False):
                raise Problem(409, f"job {job.id} exists already")
        audited(request, f"copied job {job_id} to job {job.id}")
        headers = {"location": f"/job/{job.id}"}
        return Response(_entry(book, job.id), 201, media_type=JSON, headers=headers)

    @routes.post(
        "/job/{job_id}/undo",
        summary="Take back the last change or the deletion of a job, for a quarter of an hour",
        response_class=Response,
        responses={**answer(JobEntry, "The job as it was before"), **NOT_FOUND, **CONFLICT},
    )
    async def undo(request: Request, job_id: JobId) -> Response:
        sites = changeable()
        with from_database():
            done = await sites.undo(job_id)
        if not done:
            raise Problem(409, f"job {job_id} has no change that can still be undone")
        audited(request, f"took back the last change of job {job_id}")
        return Response(_entry(book, job_id), media_type=JSON)


def _entry(book: JobRegistry, job_id: int) -> bytes:
    try:
        return book.encoded(job_id)
    except KeyError:
        raise no_job(job_id) from None
