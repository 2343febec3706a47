"""Jobs as rows of availability_monitor_config, and those that were stopped by hand."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from monitor.errors import SettingError
from monitor.probes.job import Job
from monitor.probes.source import JobList, JobSource
from monitor.store import Connection, Row, Store
from monitor.validation import decoding_problem

__all__ = [
    "BEFORE_FREE",
    "CHANNEL",
    "DatabaseJobs",
    "Saved",
    "load_jobs",
    "save_jobs",
    "start_job",
    "stop_job",
    "stopped_jobs",
]

CHANNEL = "jobs"
"""Told (Connection.notify) about each change that shall be seen before the next minute."""

BEFORE_FREE = (
    "WHERE amc_id < 9223372036854775807"
    " AND amc_id NOT IN (SELECT amc_id - 1 FROM availability_monitor_config)"
)
"""The rows after whose ids one is free; none is after the greatest that there can be."""

_LOOK_S = 60.0

_COLUMNS = (
    "amc_id",
    "amc_name",
    "amc_url",
    "amc_method",
    "amc_interval",
    "amc_timeout",
    "amc_regexp",
    "amc_expected_status",
    "amc_options",
    "amc_active",
)
# The keys that have a column of their own, in the columns' order; all others are options.
_KEYS = (
    "id",
    "name",
    "url",
    "method",
    "interval",
    "timeout",
    "body_regexp",
    "expected_status",
    "active",
)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM availability_monitor_config"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of jobs that were saved."""

    added: int
    changed: int
    same: int


class DatabaseJobs(JobSource):
    """The rows, read again every minute and whenever :data:`CHANNEL` is told."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Stays open from one change to the next: what is told during a load is not missed.
        self._told: AsyncGenerator[str | None, None] | None = None

    async def load(self) -> JobList:
        """Read the rows, and what was stopped by hand."""
        return await self._store.read(load_jobs)

    async def changed(self) -> None:
        """Return after a minute, or as soon as somebody may have told of a change.

        That is also where it has just begun to listen: what was told before was not heard.
        """
        told = self._told or self._store.listen(CHANNEL)
        self._told = None
        with contextlib.suppress(TimeoutError):
            # Cut off, the generator is closed, and the next call begins anew.
            async with asyncio.timeout(_LOOK_S):
                await anext(told)
                self._told = told


def load_jobs(connection: Connection) -> JobList:
    """Read and check all rows; bad ones are named in ``refused`` and left out."""
    jobs, refused = [], []
    for row in connection.query(f"{_SELECT} ORDER BY amc_id"):
        try:
            job = _job(row)
            job.verify()
        except (msgspec.ValidationError, msgspec.DecodeError, SettingError) as error:
            text = str(error) if isinstance(error, SettingError) else decoding_problem(error, Job)
            refused.append(f"availability_monitor_config: site {row[0]}: {text[:200]}")
            continue
        jobs.append(job)
    return JobList(tuple(jobs), tuple(refused), stopped_jobs(connection))


def save_jobs(connection: Connection, jobs: Iterable[Job]) -> Saved:
    """Insert jobs whose ids are new, and change those whose ids are known; delete none."""
    known = {row[0]: row for row in connection.query(_SELECT)}
    added = changed = same = 0
    for job in jobs:
        row = _row(job)
        before = known.get(job.id)
        if before is None:
            added += 1
        elif _readable(before) == job:
            same += 1
            continue
        else:
            changed += 1
        assignments = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
        connection.insert(
            "availability_monitor_config",
            _COLUMNS,
            [row],
            f"ON CONFLICT (amc_id) DO UPDATE SET {assignments}",
        )
    if connection.dialect == "postgresql":
        # Rows inserted without an id get one past those that came with theirs.
        connection.query(
            "SELECT setval(pg_get_serial_sequence('availability_monitor_config', 'amc_id'),"  # noqa: S608
            f" max(amc_id)) FROM availability_monitor_config {BEFORE_FREE}"
            " HAVING max(amc_id) IS NOT NULL"
        )
    connection.notify(CHANNEL, "saved")
    return Saved(added, changed, same)


def stopped_jobs(connection: Connection) -> frozenset[int]:
    """Return the ids of the jobs that were stopped by hand."""
    return frozenset(job_id for (job_id,) in connection.query("SELECT job_id FROM job_state"))


def stop_job(connection: Connection, job_id: int, *, now: float | None = None) -> bool:
    """Keep a job stopped, over restarts too; False where it already is."""
    stopped_at = time.time() if now is None else now
    changed = connection.execute(
        "INSERT INTO job_state (job_id, stopped_at) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (job_id, stopped_at),
    )
    connection.notify(CHANNEL, "stopped")
    return changed == 1


def start_job(connection: Connection, job_id: int) -> bool:
    """Let a job that was stopped by hand run again; False where it was not stopped."""
    changed = connection.execute("DELETE FROM job_state WHERE job_id = %s", (job_id,))
    connection.notify(CHANNEL, "started")
    return changed == 1


@functools.cache
def _defaults() -> dict[str, Any]:
    defaults: dict[str, Any] = msgspec.to_builtins(Job(id=1, url=""))
    return defaults


def _row(job: Job) -> Row:
    data = msgspec.to_builtins(job)
    options = {
        key: value for key, value in data.items() if key not in _KEYS and value != _defaults()[key]
    }
    values = {key: data[key] for key in _KEYS}
    values["expected_status"] = msgspec.json.encode(job.expected_status).decode()
    *columns, active = values.values()
    return (*columns, msgspec.json.encode(options).decode(), active)


def _job(row: Row) -> Job:
    *columns, options, active = row
    data = dict(zip(_KEYS, [*columns, bool(active)], strict=True))
    data["expected_status"] = msgspec.json.decode(data["expected_status"])
    return msgspec.convert({**msgspec.json.decode(options, type=dict), **data}, Job)


def _readable(row: Row) -> Job | None:
    try:
        return _job(row)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None
