"""One attempt at a job, as the runner makes it."""

from __future__ import annotations

from typing import Any

from monitor.probes.check import Outcome
from monitor.probes.checking import Checks
from monitor.probes.checks import DEFAULT_KIND, error_words, kind_of, read_job


async def check(url: str, **keys: Any) -> Outcome:
    job = read_job(
        {"id": 1, "kind": kind_of(url) or DEFAULT_KIND, "url": url, "timeout": 10, **keys}
    )

    checks = Checks(resolver_threads=2)
    try:
        outcome = await checks.prepare(job)()
    finally:
        await checks.close()
    assert outcome.error is None or outcome.error.partition(":")[0] in error_words()
    assert outcome.error is None or outcome.error.isascii()
    assert outcome.up == (outcome.error is None)
    return outcome


def phases(outcome: Outcome) -> list[float]:
    found = outcome.phases
    return [found.resolve, found.connect, found.tls, found.processing, found.transfer]
