"""The sites and their past days, so that the demonstration has something to look back on."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monitor import messages
from monitor.aggregation import sqlite_rows
from monitor.aggregation.windows import aggregate
from monitor.cluster.events import ROLLED_BACK, UPGRADED
from monitor.messages import ModelEvent, Phases, Result
from monitor.probes.checks import read_job
from monitor.probes.jobs_table import save_jobs
from monitor.store import Connection, DatabaseSettings, open_store

__all__ = ["write_past"]

_DENSE_S, _DENSE_STEP_S = 90 * 60, 20
_LONG_S, _LONG_STEP_S = 90 * 3600, 600
_AT_ONCE = 4000
# The first site was down for a while, as a model was rolled out before (s ago).
_ILL_FROM_S, _ILL_UNTIL_S = 72 * 60, 60 * 60
_ROLLOUTS = ((UPGRADED, "3.2", _ILL_FROM_S + 130), (ROLLED_BACK, "3.1", _ILL_UNTIL_S + 70))


async def write_past(folder: Path, jobs: Sequence[dict[str, Any]]) -> None:
    """Write ``jobs`` and a plausible past of theirs into the database in ``folder``."""
    store = open_store(DatabaseSettings(file=str(folder / "monitor.db")))
    await store.start()
    now = time.time()
    try:

        def save(connection: Connection) -> None:
            save_jobs(connection, [read_job(job) for job in jobs])

        await store.transaction(save)
        await store.transaction(lambda connection: _write_rollouts(connection, now))
        results = [result for job in jobs for result in _results(job, now)]
        for start in range(0, len(results), _AT_ONCE):
            some = results[start : start + _AT_ONCE]

            def write(connection: Connection, some: Sequence[Result] = some) -> None:
                rows = sqlite_rows.result_rows(some)
                sqlite_rows.insert_results(connection, some, rows)
                windows = aggregate(some, ["minute", "hour", "day"])
                sqlite_rows.add_metrics(connection, sqlite_rows.metric_rows(windows))

            await store.transaction(write)
    finally:
        await store.close()


def _results(job: dict[str, Any], now: float) -> Iterator[Result]:
    choose = random.Random(job["id"])
    usual = 10 ** choose.uniform(-2.1, -0.7)
    broken = job["url"].endswith(":9/")
    ill_share = choose.choice((0.0, 0.0, 0.0, 0.002, 0.012))
    # The daemon itself was down for a while: a gap.
    away = (now - 52 * 60, now - 47 * 60)
    ill_until = 0.0
    instants = [now - _LONG_S + step for step in range(0, _LONG_S - _DENSE_S, _LONG_STEP_S)]
    instants += [now - _DENSE_S + step for step in range(0, _DENSE_S - 20, _DENSE_STEP_S)]
    for at in instants:
        if away[0] < at < away[1]:
            continue
        if choose.random() < ill_share:
            ill_until = at + choose.uniform(30, 1500)
        ill = job["id"] == 1 and _ILL_UNTIL_S < now - at < _ILL_FROM_S
        up = not broken and not ill and at > ill_until
        took = usual * choose.lognormvariate(0, 0.35) * (1.6 if choose.random() < 0.03 else 1)
        yield Result(
            job_id=job["id"],
            url=job["url"],
            kind=job.get("kind", "http"),
            scheduled_at=round(at, 3),
            checked_at=round(at, 3) + 0.001,
            up=up,
            status=None if broken else 200 if up else 503,
            response_time=None if broken else round(took, 6),
            duration=round(took, 6),
            error="refused: Connection refused" if broken else None if up else "bad-status: 503",
            matched=None if broken else True,
            phases=Phases(resolve=0.0001, connect=0.0002, processing=round(took * 0.8, 6)),
        )


def _write_rollouts(connection: Connection, now: float) -> None:
    for number, (kind, version, ago) in enumerate(_ROLLOUTS):
        event = ModelEvent(
            cluster="faculty",
            namespace="models",
            kind="Deployment",
            name="checker",
            model="checker",
            version=version,
            duration=20.0,
            changed_by="alice",
            link="",
            cause="image-changed",
        )
        connection.insert(
            "model_event",
            ("id", "cluster", "type", "source", "key", "time", "data", "forwarded_at"),
            [
                (
                    f"past-{number}",
                    "faculty",
                    kind,
                    "/",
                    "models/checker",
                    now - ago,
                    messages.encode(event).decode(),
                    now - ago,
                )
            ],
        )
