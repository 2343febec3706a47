"""Brings over the sites of an earlier monitor of websites, whose tables were set aside.

Each site moves in the transaction that creates it here, so an interruption loses none and repeats
none. What cannot be taken stays where it is, and is tried again by the next call.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from monitor.errors import SettingError
from monitor.probes.checks import read_job
from monitor.probes.job import Job
from monitor.probes.jobs_table import save_jobs
from monitor.store import Connection, Store
from monitor.store.earlier_tables import EARLIER_SITES, has_earlier_sites

__all__ = ["Brought", "bring_over", "earlier_results"]

_AT_ONCE = 500
_KEY_OF = {
    "amc_id": "id",
    "amc_url_with_schema": "url",
    "amc_regexp": "body_regexp",
    "amc_active": "active",
}
_RESULTS = "availability_monitor_metrics"


@dataclass(frozen=True, slots=True)
class Brought:
    """Some rows: the jobs that were made of them, a line for each other one, and the last id."""

    jobs: tuple[Job, ...]
    refused: tuple[str, ...]
    last: int | None


async def bring_over(store: Store) -> Brought | None:
    """Move all rows that can be taken; return None if there is nothing of an earlier monitor.

    Raises MonitorError if the database fails; what has moved stays.
    """
    if not await store.read(has_earlier_sites):
        return None
    jobs: list[Job] = []
    refused: list[str] = []
    after: int | None = -(2**63)
    while after is not None:

        def step(connection: Connection, after: int = after) -> Brought:
            return _move(connection, after)

        some = await store.transaction(step)
        jobs += some.jobs
        refused += some.refused
        after = some.last
    nameless = await store.transaction(_drop_empty)
    if nameless:
        refused.append(f"{EARLIER_SITES}: rows without an amc_id: {nameless}")
    return Brought(tuple(jobs), tuple(refused), None)


async def earlier_results(store: Store) -> int | None:
    """Return how many results an earlier monitor left, which do not say of which site they are."""

    def count(connection: Connection) -> int | None:
        if connection.dialect != "postgresql":
            return None
        ((there,),) = connection.query(f"SELECT to_regclass('{_RESULTS}') IS NOT NULL")
        if not there:
            return None
        return int(connection.query(f"SELECT count(*) FROM {_RESULTS}")[0][0])  # noqa: S608

    return await store.read(count)


def _drop_empty(connection: Connection) -> int:
    """Drop the earlier table if all has moved; return how many of its rows have no id."""
    ((left, named),) = connection.query(
        f"SELECT count(*), count(amc_id) FROM {EARLIER_SITES}"  # noqa: S608
    )
    if not left:
        connection.execute(f"DROP TABLE {EARLIER_SITES}")
    return int(left - named)


def _move(connection: Connection, after: int) -> Brought:
    """Move the next rows; ``last`` is the id of the last one, None at the end."""
    rows = connection.query(
        f"SELECT amc_id, to_jsonb(e)::text FROM {EARLIER_SITES} AS e WHERE amc_id > %s"  # noqa: S608
        f" ORDER BY amc_id LIMIT {_AT_ONCE} FOR UPDATE",
        (after,),
    )
    ids = [row[0] for row in rows]
    known = {
        found
        for (found,) in connection.query(
            "SELECT amc_id FROM availability_monitor_config WHERE amc_id = ANY(%s)", (ids,)
        )
    }
    jobs, refused = [], []
    for amc_id, text in rows:
        try:
            if amc_id in known or ids.count(amc_id) > 1:
                raise SettingError(("amc_id",), f"another site has the id {amc_id} here")
            jobs.append(_job(json.loads(text)))
        except SettingError as error:
            refused.append(f"{EARLIER_SITES}: row {amc_id}: {error}")
    save_jobs(connection, jobs)
    connection.execute(
        f"DELETE FROM {EARLIER_SITES} WHERE amc_id = ANY(%s)",  # noqa: S608
        ([job.id for job in jobs],),
    )
    return Brought(tuple(jobs), tuple(refused), ids[-1] if len(ids) == _AT_ONCE else None)


def _job(row: dict[str, Any]) -> Job:
    """Return the job of a row; raises SettingError."""
    unknown = [name for name, value in row.items() if name not in _KEY_OF and value is not None]
    if unknown:
        raise SettingError((unknown[0],), "a column that is not known here; empty it or drop it")
    given = {_KEY_OF[name]: value for name, value in row.items() if value is not None}
    if not given.get("body_regexp"):
        # An empty expression meant no expression.
        given.pop("body_regexp", None)
    return read_job({**given, "kind": "http"})
