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
from monitor.store import Connection, JsonText, Row, Store
from monitor.validation import decoding_problem

__all__ = [
    "CHANNEL",
    "DatabaseJobs",
    "Saved",
    "choose_id",
    "end_pauses",
    "load_jobs",
    "save_jobs",
    "start_job",
    "stop_job",
    "stopped_jobs",
]

CHANNEL = "jobs"
"""Gets a notification (Connection.notify) of each change, or it would be seen a minute later."""

# Ids past it are not chosen: JavaScript cannot tell them apart.
_MOST_CHOSEN = 2**53 - 1

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
_TEXTS = {"amc_name", "amc_url", "amc_method", "amc_regexp", "amc_expected_status", "amc_options"}


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
    for row in connection.query(f"{_select(connection)} ORDER BY amc_id"):
        try:
            jobs.append(_job(row))
        except (SettingError, msgspec.DecodeError) as error:
            text = str(error) if isinstance(error, SettingError) else decoding_problem(error)
            refused.append(f"availability_monitor_config: job {row[0]}: {text[:200]}")
    found = JobList(tuple(jobs), tuple(refused), stopped_jobs(connection))
    return found.without_circles("availability_monitor_config")


def _select(connection: Connection) -> str:
    """Return a query for all rows.

    SQLite takes any bytes for text, and one such row would fail the whole query: its texts are
    read as bytes.
    """
    bare = connection.dialect == "sqlite"
    columns = (f"CAST({each} AS BLOB)" if bare and each in _TEXTS else each for each in _COLUMNS)
    return f"SELECT {', '.join(columns)} FROM availability_monitor_config"  # noqa: S608


def save_jobs(connection: Connection, jobs: Iterable[Job]) -> Saved:
    """Insert jobs whose ids are new, and change those whose ids are known; delete none."""
    known = {row[0]: row for row in connection.query(_select(connection))}
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
    _remember_ids(connection)
    connection.notify(CHANNEL, "saved")
    return Saved(added, changed, same)


def choose_id(connection: Connection) -> int:
    """Return an id that no site, result or metric ever had; another call returns another one."""
    if connection.dialect == "postgresql":
        # One at a time, until the end of the transaction.
        connection.execute("LOCK TABLE job_id_mark IN EXCLUSIVE MODE")
    _remember_ids(connection)
    used = [_greatest(connection, "job_id_mark", "greatest")]
    used += [
        _greatest(connection, table, "job_id")
        for table in ("availability_result", "availability_metric", "job_state")
    ]
    chosen = max(used) + 1
    _mark(connection, chosen)
    return chosen


def _greatest(connection: Connection, table: str, column: str) -> int:
    ((found,),) = connection.query(
        f"SELECT max({column}) FROM {table} WHERE {column} < %s",  # noqa: S608
        (_MOST_CHOSEN,),
    )
    return int(found or 0)


def _remember_ids(connection: Connection) -> None:
    """Note the greatest id of the sites, and let PostgreSQL count from it, too.

    Rows that people insert without an id get one past all those that were there.
    """
    greatest = _greatest(connection, "availability_monitor_config", "amc_id")
    if greatest:
        _mark(connection, greatest)


def _mark(connection: Connection, job_id: int) -> None:
    connection.execute(
        "INSERT INTO job_id_mark (place, greatest) VALUES (1, %s) ON CONFLICT (place) DO UPDATE"
        " SET greatest = CASE WHEN excluded.greatest > job_id_mark.greatest"
        " THEN excluded.greatest ELSE job_id_mark.greatest END",
        (job_id,),
    )
    if connection.dialect == "postgresql":
        connection.query(
            "SELECT setval(pg_get_serial_sequence('availability_monitor_config', 'amc_id'),"
            " max(greatest)) FROM job_id_mark WHERE place = 1"
        )


def stopped_jobs(connection: Connection, *, now: float | None = None) -> frozenset[int]:
    """Return the ids of the jobs that were stopped by hand, without pauses that have ended."""
    rows = connection.query(
        "SELECT job_id FROM job_state WHERE stopped_until IS NULL OR stopped_until > %s",
        (time.time() if now is None else now,),
    )
    return frozenset(job_id for (job_id,) in rows)


def stop_job(
    connection: Connection, job_id: int, *, until: float | None = None, now: float | None = None
) -> bool:
    """Stop a job, even across restarts; return False if it was stopped already.

    It starts again at ``until`` (s since the epoch), or else when it is started by hand.
    """
    at = time.time() if now is None else now
    connection.execute(
        "DELETE FROM job_state WHERE job_id = %s AND stopped_until <= %s", (job_id, at)
    )
    changed = connection.execute(
        "INSERT INTO job_state (job_id, stopped_at, stopped_until) VALUES (%s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (job_id, at, until),
    )
    connection.notify(CHANNEL, "stopped")
    return changed == 1


def start_job(connection: Connection, job_id: int) -> bool:
    """Start a job that was stopped by hand; return False if it was not stopped."""
    changed = connection.execute("DELETE FROM job_state WHERE job_id = %s", (job_id,))
    connection.notify(CHANNEL, "started")
    return changed == 1


def end_pauses(connection: Connection, *, now: float) -> bool:
    """Start the jobs that were stopped until a time that is past; return whether there are any."""
    changed = connection.execute("DELETE FROM job_state WHERE stopped_until <= %s", (now,))
    connection.notify(CHANNEL, "started")
    return changed > 0


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
    values["expected_status"] = JsonText(msgspec.json.encode(values["expected_status"]).decode())
    return (*values.values(), JsonText(msgspec.json.encode(options).decode()))


def _job(row: Row) -> Job:
    """Return a row's verified job; raise SettingError or msgspec.DecodeError."""
    *columns, options = map(_text, _COLUMNS, row)
    found = dict(zip(_COLUMN_OF, columns, strict=True))
    found["active"] = bool(found["active"])
    found["expected_status"] = msgspec.json.decode(found["expected_status"])
    given = msgspec.json.decode(options, type=dict)
    for key, column in _COLUMN_OF.items():
        if given.get(key, found[key]) != found[key]:
            raise SettingError(("amc_options", key), f"belongs in the column {column}")
    data = {key: value for key, value in given.items() if key not in _COLUMN_OF}
    # A column of a key that the job's kind does not have must hold its default.
    data |= {
        key: value
        for key, value in found.items()
        if key not in _COLUMN_DEFAULTS or value != _COLUMN_DEFAULTS[key]
    }
    return read_job(data)


def _text(column: str, value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise SettingError((column,), "is not valid UTF-8") from None


def _readable(row: Row) -> Job | None:
    try:
        return _job(row)
    except (SettingError, msgspec.DecodeError):
        return None
