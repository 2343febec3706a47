"""Sites in the database: create, change and delete them, so that the probes load them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from monitor.probes.beats_table import key_hash, new_key
from monitor.probes.job import Job
from monitor.probes.jobs_table import CHANNEL, choose_id, save_jobs
from monitor.store import Connection, Store
from monitor.web.jobs.registry import JobRegistry

__all__ = ["Sites"]

_UNDO_S = 900.0
_MOST_FORMER = 200


class Sites:
    """The sites that a registry's jobs come from; changes show there soon after.

    Every method raises MonitorError if the database fails.
    """

    def __init__(self, store: Store, book: JobRegistry) -> None:
        self._store = store
        self._book = book
        # What was changed or deleted last, as it was before, and when; the oldest first.
        self._former: dict[int, tuple[Job, float]] = {}

    async def save(self, job: Job, *, known: bool) -> bool:
        """Create a site, or change one that is ``known``.

        Returns False if a site of that id exists and should not, or should exist and does not.
        """
        before = self._book.probes.jobs
        former = self._book.job(job.id) if known and job.id in self._book else None
        saved = await self._store.transaction(partial(_save, job=job, known=known))
        if saved:
            self._remember(job.id, former)
            await self._book.settle(
                lambda: self._book.probes.jobs is not before and job.id in self._book
            )
        return saved

    async def add(self, jobs: Sequence[Job]) -> list[int]:
        """Create sites, all or none, and return the ids that they get."""
        ids = await self._store.transaction(partial(_add, jobs=jobs))
        await self._book.settle(lambda: all(job_id in self._book for job_id in ids))
        return ids

    async def undo(self, job_id: int) -> bool:
        """Save a site as it was before its last change, or before it was deleted.

        Returns False if that is not known any more. The key of a heartbeat is not restored.
        """
        former, changed_at = self._former.get(job_id, (None, 0.0))
        if former is None or time.monotonic() - changed_at > _UNDO_S:
            return False
        return await self.save(former, known=job_id in self._book)

    def _remember(self, job_id: int, former: Job | None) -> None:
        self._former.pop(job_id, None)
        if former is None:
            return
        self._former[job_id] = former, time.monotonic()
        while len(self._former) > _MOST_FORMER:
            del self._former[next(iter(self._former))]

    async def next_id(self) -> int:
        """Return an id that no site, result or metric ever had."""
        return await self._store.transaction(choose_id)

    async def was_used(self, job_id: int) -> bool:
        """Return whether there are results or metrics of an id, so that no new site can have it."""
        return await self._store.read(partial(_was_used, job_id=job_id))

    async def new_key(self, job_id: int) -> str:
        """Return a new key for the heartbeats of a site; the former one stops working."""
        key = await self._store.transaction(lambda connection: new_key(connection, job_id))
        self._book.take_key(job_id, key_hash(key))
        return key

    async def delete(self, job_id: int) -> bool:
        """Delete a site, not its results; return False if it does not exist."""
        former = self._book.job(job_id) if job_id in self._book else None
        deleted = await self._store.transaction(partial(_delete, job_id=job_id))
        if deleted:
            self._remember(job_id, former)
            await self._book.settle(lambda: job_id not in self._book)
        return deleted


def _save(connection: Connection, job: Job, *, known: bool) -> bool:
    rows = connection.query(
        "SELECT 1 FROM availability_monitor_config WHERE amc_id = %s", (job.id,)
    )
    if bool(rows) != known:
        return False
    save_jobs(connection, [job])
    return True


def _was_used(connection: Connection, *, job_id: int) -> bool:
    tables = ("availability_result", "availability_metric")
    return any(
        connection.query(f"SELECT 1 FROM {table} WHERE job_id = %s LIMIT 1", (job_id,))  # noqa: S608
        for table in tables
    )


def _add(connection: Connection, *, jobs: Sequence[Job]) -> list[int]:
    added = [job.replace(id=choose_id(connection)) for job in jobs]
    save_jobs(connection, added)
    return [job.id for job in added]


def _delete(connection: Connection, job_id: int) -> bool:
    deleted = connection.execute(
        "DELETE FROM availability_monitor_config WHERE amc_id = %s", (job_id,)
    )
    connection.execute("DELETE FROM job_state WHERE job_id = %s", (job_id,))
    connection.execute("DELETE FROM heartbeat WHERE job_id = %s", (job_id,))
    connection.notify(CHANNEL, "deleted")
    return deleted > 0
