"""A daemon with a public status page: sites that everybody may see, others, and a past."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monitor.aggregation import sqlite_rows
from monitor.aggregation.windows import aggregate
from monitor.messages import Phases, Result
from monitor.store import Connection, DatabaseSettings, open_store
from tests.ports import free_port
from tests.web.whole import Whole, whole

TITLE = "Services <of> the faculty"
HOSTILE = '</script><img src=x onerror="evil()">\u202edlog'
SECRET = "secret-backoffice"
WORDS = ("secret", "127.0.0.1", "refused", "http://", "website_mock", "staff-only")
"""What no public answer contains."""

_HOUR_S = 3600


def jobs(port: int) -> list[dict[str, Any]]:
    """Return the jobs: 1 to 5 are public, 6 and 7 are not."""
    good = f"http://127.0.0.1:{port}/website_mock?delay=0&size=9&status=200&secret=1"
    common: dict[str, Any] = {
        "interval": 0.5,
        "timeout": 2,
        "tags": ["public", "staff-only"],
        # The mock site wants a token, too; that it answers is enough.
        "expected_status": ["401"],
    }
    return [
        {"id": 1, "name": "Submission portal", "url": good, **common},
        {"id": 2, "name": HOSTILE, "url": "http://127.0.0.1:9/secret-path", **common},
        {"id": 3, "name": "", "url": good, **common},
        {"id": 4, "name": "Course wiki", "url": good, **common, "degraded_after": 0.000001},
        {"id": 5, "name": "Never run", "url": good, **common, "active": False},
        {"id": 6, "name": SECRET, "url": good, **common, "tags": ["internal"]},
        {"id": 7, "name": f"{SECRET} 2", "url": "http://127.0.0.1:9/", **common, "tags": []},
    ]


@contextlib.contextmanager
def public_daemon(folder: Path) -> Iterator[Whole]:
    """Run it with tokens; until half an hour ago site 1 had an outage of three hours."""
    port = free_port()
    database = {"file": str(folder / "past.db")}
    asyncio.run(_write_past(database, port))
    api = {
        "uri": ["127.0.0.1", port],
        "website_mock": True,
        "status_page": {"title": TITLE, "match": {"tags": ["public"]}},
    }
    with whole(
        tokens=True,
        api=api,
        database=database,
        probes={"jobs": jobs(port)},
        alerts={
            "rules": [{"name": "down", "watch": "site"}, {"name": "again", "watch": "site"}],
            "maintenance": [
                {"name": "staff-only window", "days": [_day_ahead(2)], "match": {"jobs": [1, 6]}}
            ],
            "group_wait": 0,
        },
    ) as running:
        running.wait_for_state(1, "up")
        running.wait_for_state(2, "down")
        yield running


def _day_ahead(days: int) -> str:
    weekday = time.gmtime(time.time() + days * 86400).tm_wday
    return ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[weekday]


async def _write_past(database: dict[str, Any], port: int) -> None:
    store = open_store(DatabaseSettings(**database))
    await store.start()
    now = time.time()
    hour = now // _HOUR_S * _HOUR_S
    results = []
    for job in jobs(port):
        for ago in range(80 * 24, 0, -1):
            at = hour - ago * _HOUR_S
            ill = job["id"] in (1, 6) and (2 <= ago <= 4 or ago == 700)
            results.append(_result(job, at, up=not ill))
    try:
        for start in range(0, len(results), 4000):
            some = results[start : start + 4000]

            def write(connection: Connection, some: list[Result] = some) -> None:
                windows = aggregate(some, ["minute", "hour", "day"])
                sqlite_rows.add_metrics(connection, sqlite_rows.metric_rows(windows))

            await store.transaction(write)
    finally:
        await store.close()


def _result(job: dict[str, Any], at: float, *, up: bool) -> Result:
    return Result(
        job_id=job["id"],
        url=job["url"],
        scheduled_at=at,
        checked_at=at,
        up=up,
        status=200 if up else None,
        response_time=0.05 if up else None,
        duration=0.05,
        error=None if up else "connection-refused: secret-host",
        matched=True,
        phases=Phases(connect=0.01),
    )
