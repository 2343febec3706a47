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
from monitor.probes.checks import DEFAULT_KIND, read_job
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
"""Gets a notification (Connection.notify) of each change, or it would be seen a minute later."""

BEFORE_FREE = (
    "WHERE amc_id < 9223372036854775807"
    " AND amc_id NOT IN (SELECT amc_id - 1 FROM availability_monitor_config)"
)
"""The rows after whose ids one is free; none is after the greatest that there can be."""

_LOOK_S = 60.0

# The keys that have a column of their own; all others are options.
_COLUMN_OF = {
    "id": "amc_id",
    "name": "amc_name",
    "url": "amc_url",
    "method": "amc_method",
    "interval": "amc_interval",
    "timeout": "amc_timeout",
    "body_regexp": "amc_regexp",
    "expected_status": "amc_expected_status",
    "active": "amc_active",
}
_COLUMNS = (*_COLUMN_OF.values(), "amc_options")
# What their columns hold for kinds that have no such key; also the defaults of http.
_COLUMN_DEFAULTS = {"method": "GET", "body_regexp": None, "expected_status": ["200-299"]}
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM availability_monitor_config"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Saved:
    """How many of the saved jobs were new, changed or the same."""

    added: int
    changed: int
    same: int


class DatabaseJobs(JobSource):
    """The rows, read again every minute and at each notification on :data:`CHANNEL`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Stays open from one change to the next, so that none is missed during a load.
        self._notifications: AsyncGenerator[str | None, None] | None = None

    async def load(self) -> JobList:
        """Read the rows, and which jobs were stopped by hand."""
        return await self._store.read(load_jobs)

    async def changed(self) -> None:
        """Return after a minute, or as soon as the rows may have changed.

        That includes the moment it starts to listen: notifications before it were missed.
        """
        notifications = self._notifications or self._store.listen(CHANNEL)
        self._notifications = None
        with contextlib.suppress(TimeoutError):
            # A timeout closes the generator, and the next call starts another.
            async with asyncio.timeout(_LOOK_S):
                await anext(notifications)
                self._notifications = notifications


def load_jobs(connection: Connection) -> JobList:
    """Read and check all rows; ``refused`` names bad ones, which are left out."""
    jobs, refused = [], []
    for row in connection.query(f"{_SELECT} ORDER BY amc_id"):
        try:
            jobs.append(_job(row))
        except (SettingError, msgspec.DecodeError) as error:
            text = str(error) if isinstance(error, SettingError) else decoding_problem(error)
            refused.append(f"availability_monitor_config: job {row[0]}: {text[:200]}")
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
    """Stop a job, beyond restarts too; return False if it already was stopped."""
    changed = connection.execute(
        "INSERT INTO job_state (job_id, stopped_at) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (job_id, time.time() if now is None else now),
    )
    connection.notify(CHANNEL, "stopped")
    return changed == 1


def start_job(connection: Connection, job_id: int) -> bool:
    """Start a job that was stopped by hand; return False if it was not stopped."""
    changed = connection.execute("DELETE FROM job_state WHERE job_id = %s", (job_id,))
    connection.notify(CHANNEL, "started")
    return changed == 1


@functools.cache
def _defaults(kind: type[Job]) -> dict[str, Any]:
    defaults: dict[str, Any] = msgspec.to_builtins(kind(id=1, url=""))
    del defaults["kind"]
    return defaults


def _row(job: Job) -> Row:
    data = msgspec.to_builtins(job)
    options = {
        key: data[key]
        for key, default in _defaults(type(job)).items()
        if key not in _COLUMN_OF and data[key] != default
    }
    if job.kind != DEFAULT_KIND:
        options["kind"] = job.kind
    values = {key: data.get(key, _COLUMN_DEFAULTS.get(key)) for key in _COLUMN_OF}
    values["expected_status"] = msgspec.json.encode(values["expected_status"]).decode()
    return (*values.values(), msgspec.json.encode(options).decode())


def _job(row: Row) -> Job:
    """Return a row's verified job; raise SettingError or msgspec.DecodeError."""
    *columns, options = row
    found = dict(zip(_COLUMN_OF, columns, strict=True))
    found["active"] = bool(found["active"])
    found["expected_status"] = msgspec.json.decode(found["expected_status"])
    given = msgspec.json.decode(options, type=dict)
    data = {key: value for key, value in given.items() if key not in _COLUMN_OF}
    # A column of a key that the job's kind does not have must hold its default.
    data |= {
        key: value
        for key, value in found.items()
        if key not in _COLUMN_DEFAULTS or value != _COLUMN_DEFAULTS[key]
    }
    return read_job(data)


def _readable(row: Row) -> Job | None:
    try:
        return _job(row)
    except (SettingError, msgspec.DecodeError):
        return None
