"""Whether a whole answer is what its job expects."""

from __future__ import annotations

import time
from collections.abc import Sequence

from monitor.probes.checks.http.answer_headers import charset_of, header_values
from monitor.probes.checks.http.decoding import decoders
from monitor.probes.checks.http.job import HttpJob
from monitor.probes.matching import Matcher

__all__ = ["mismatch"]


async def mismatch(
    job: HttpJob, matcher: Matcher, *, lines: Sequence[bytes], body: bytes, until: float
) -> str | None:
    """Return how header and body differ from what the job expects; None if they do not.

    ``until``, in time.monotonic(), bounds the time; past it, the result is a timeout.
    """
    charset = charset_of(lines)

    async def found(expression: str, text: bytes, charset: str) -> bool:
        left_s = until - time.monotonic()
        return await matcher.search(
            expression, text, charset=charset, job_id=job.id, timeout_s=left_s
        )

    key = "header_regexps"
    try:
        for name, expression in job.header_regexps.items():
            values = header_values(lines, name)
            if not any([await found(expression, value, "utf-8") for value in values]):
                return f"header-mismatch: {name}"
        key = "body_regexp"
        if job.body_regexp is not None and not await found(job.body_regexp, body, charset):
            return f"body-mismatch: body_regexp does not match{_coding(lines)}"
        key = "body_absent_regexp"
        absent = job.body_absent_regexp
        if absent is not None and await found(absent, body, charset):
            return "body-mismatch: body_absent_regexp matches"
        key = "json"
        if job.json is not None:
            left_s = until - time.monotonic()
            problem = await matcher.json_problem(
                job.json, body, charset=charset, job_id=job.id, timeout_s=left_s
            )
            if problem is not None:
                return f"body-mismatch: {problem}{_coding(lines)}"
    except TimeoutError:
        return f"timeout: {key} takes too long"
    return None


def _coding(lines: Sequence[bytes]) -> str:
    """Return a note on a coding that was not undone, for an answer that does not match."""
    coding = b",".join(header_values(lines, "content-encoding")).decode("latin-1")
    return f" (Content-Encoding: {coding[:80]!a})" if coding and not decoders(coding) else ""
