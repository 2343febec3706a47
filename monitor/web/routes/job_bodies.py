"""Jobs in the bodies of requests: read, verified against the others, compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import Request

from monitor.errors import SettingError
from monitor.files.json_keys import require_keys_once
from monitor.files.threads import call_aside
from monitor.probes.checks import read_job
from monitor.probes.dependencies import CIRCULAR, circular_jobs
from monitor.probes.job import Job
from monitor.validation import decoding_problem
from monitor.web.http.bodies import short_body
from monitor.web.http.problems import Problem
from monitor.web.jobs.registry import JobRegistry

__all__ = ["changed_keys", "given_keys", "require_dependencies", "verified_job"]


async def given_keys(request: Request) -> dict[str, Any]:
    """Return the keys in the body of a request; anything else is a problem."""
    body = await short_body(request)
    try:
        given = dict(msgspec.json.decode(body, type=dict[str, Any]))
        require_keys_once(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(422, f"body: {decoding_problem(error)}") from None
    except SettingError as error:
        raise Problem(422, str(error.under("body"))) from None
    return given


def verified_job(given: dict[str, Any]) -> Job:
    """Return the verified job; raise Problem for anything that is wrong with it.

    Blocks: it reads files, and compiles an expression.
    """
    try:
        return read_job(given)
    except SettingError as error:
        raise Problem(422, str(error.under("body"))) from None


def changed_keys(before: Job | None, after: Job) -> str:
    """Return the keys that differ; values may be secrets."""
    same_kind = type(before) is type(after)
    return ", ".join(
        key
        for key in after.__struct_fields__
        if not same_kind or getattr(before, key) != getattr(after, key)
    )


async def require_dependencies(book: JobRegistry, job: Job) -> None:
    """Raise Problem for a new dependency that does not exist, or one that leads back to the job."""
    if job.depends_on:
        # With thousands of jobs a circle takes long to find.
        await call_aside(_require_dependencies, book.all(), job)


def _require_dependencies(known: Mapping[int, Job], job: Job) -> None:
    jobs = {**known, job.id: job}
    before = known[job.id].depends_on if job.id in known else []
    for job_id in job.depends_on:
        if job_id not in jobs and job_id not in before:
            raise Problem(422, f"body.depends_on: there is no job {job_id}")
    if job.id in circular_jobs(jobs.values()):
        raise Problem(422, f"body.depends_on: {CIRCULAR}")
