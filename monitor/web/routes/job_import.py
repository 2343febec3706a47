"""POST /job/import: the jobs of another program's file, looked at first and then created."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from monitor.errors import ConfigError
from monitor.files.threads import call_aside
from monitor.probes.importing import Entry, imported
from monitor.probes.job import Job
from monitor.web.http.answers import json_answer
from monitor.web.http.app import admin_only, audited
from monitor.web.http.bodies import without_mark
from monitor.web.http.problems import CONFLICT, Problem, from_database
from monitor.web.http.schemas import answer
from monitor.web.jobs.registry import JobRegistry
from monitor.web.jobs.sites import Sites
from monitor.yielding import in_slices

__all__ = ["add_import"]

_ANY_FILE = {"requestBody": {"required": True, "content": {"text/plain": {}}}}


class ImportedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the file: its job, if there is one, and what could not be taken of it.

    ``id`` is that of the job that was created.
    """

    place: str
    name: str | None
    kind: str | None
    url: str | None
    id: int | None
    not_taken: list[str]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """All entries of a file, and how many jobs they make, or made."""

    jobs: int
    saved: bool
    items: list[ImportedEntry]


def add_import(routes: APIRouter, book: JobRegistry, changeable: Callable[[], Sites]) -> None:
    """Add the route; ``changeable`` returns the sites, or raises a Problem that says why not."""

    @routes.post(
        "/job/import",
        summary="Show the jobs of a file of Prometheus, Gatus or Uptime Kuma, or create them",
        response_class=Response,
        responses={**answer(Imported, "What each entry of the file becomes"), **CONFLICT},
        openapi_extra=_ANY_FILE,
        dependencies=[Depends(admin_only)],
    )
    async def take(request: Request, *, save: bool = False) -> Response:
        sites = changeable()
        with from_database():
            await book.refresh()
        found = await call_aside(_entries, without_mark(await request.body()))
        found = await call_aside(_new_ones, found, book.all())
        jobs = [entry.job for entry in found if entry.job is not None]
        ids: list[int] = []
        if save and jobs:
            with from_database():
                ids = await sites.add(jobs)
            audited(request, f"imported {len(ids)} jobs, from {ids[0]} to {ids[-1]}")
        left = iter(ids)
        items = [
            ImportedEntry(
                place=entry.place,
                name=None if entry.job is None else entry.job.name,
                kind=None if entry.job is None else entry.job.kind,
                url=None if entry.job is None else entry.job.shown_url,
                id=None if entry.job is None else next(left, None),
                not_taken=entry.not_taken,
            )
            for entry in found
        ]
        return json_answer(request, Imported(jobs=len(jobs), saved=save, items=items))


def _entries(raw: bytes) -> list[Entry]:
    try:
        return list(imported("body", raw))
    except ConfigError as error:
        raise Problem(422, str(error)) from None
    except ValueError as error:
        raise Problem(422, f"body: {error}") from None


def _new_ones(entries: Sequence[Entry], known: Mapping[int, Job]) -> list[Entry]:
    ids = {_what(job): job_id for job_id, job in in_slices(sorted(known.items()))}
    return [_once(entry, ids) for entry in entries]


def _once(entry: Entry, known: Mapping[tuple[str, str, str], int]) -> Entry:
    """Leave out a job that is here already, so that a file can be imported again."""
    same = None if entry.job is None else known.get(_what(entry.job))
    if same is None:
        return entry
    return replace(entry, job=None, not_taken=[f"job {same} is the same"])


def _what(job: Job) -> tuple[str, str, str]:
    return job.kind, job.name, job.url
