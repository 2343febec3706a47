"""What a job holds while it waits for its time: there may be many thousands."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from monitor.probes.check import Attempt
from monitor.probes.checking import Checks
from monitor.probes.checks import KINDS, load_kinds, read_job
from monitor.probes.job import Job

COUNT = 100
MOST_BYTES = 5000


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_that_waits_holds_little(kind: str) -> None:
    url = f"{KINDS[kind].job.schemes[-1]}://192.0.2.1" if kind != "heartbeat" else ""
    url += ":8443" if kind in ("tcp", "tls", "grpc") else ""
    checks = Checks(resolver_threads=1)

    def prepared(number: int) -> tuple[Job, Attempt]:
        job = read_job({"id": number, "kind": kind, "url": url})
        return job, checks.prepare(job)

    load_kinds([read_job({"id": 1, "kind": kind, "url": url})])
    try:
        # It makes what all jobs share.
        prepared(1)
        gc.collect()
        tracemalloc.start()
        waiting = [prepared(number) for number in range(1, COUNT + 1)]
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        await checks.close()
    assert held / len(waiting) < MOST_BYTES
