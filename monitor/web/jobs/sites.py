"""Sites in the database: create, change and delete them, so that the probes load them."""

from __future__ import annotations

from functools import partial

from monitor.probes.job import Job
from monitor.probes.jobs_table import BEFORE_FREE, CHANNEL, save_jobs
from monitor.store import Connection, Store
from monitor.web.jobs.registry import JobRegistry

__all__ = ["Sites"]


class Sites:
    """The sites that a registry's jobs come from; changes show there soon after.

    Every method raises MonitorError if the database fails.
    """

    def __init__(self, store: Store, book: JobRegistry) -> None:
        self._store = store
        self._book = book

    async def save(self, job: Job, *, known: bool) -> bool:
        """Create a site, or change one that is ``known``.

        Returns False if a site of that id exists and should not, or should exist and does not.
        """
        before = self._book.probes.jobs
        saved = await self._store.transaction(partial(_save, job=job, known=known))
        if saved:
            await self._book.settle(
                lambda: self._book.probes.jobs is not before and job.id in self._book
            )
        return saved

    async def next_id(self) -> int:
        """Return an id that no site has."""
        rows = await self._store.read(
            lambda connection: connection.query(
                f"SELECT coalesce(max(amc_id), 0) FROM availability_monitor_config {BEFORE_FREE}"  # noqa: S608
            )
        )
        return int(rows[0][0]) + 1

    async def delete(self, job_id: int) -> bool:
        """Delete a site, not its results; return False if it does not exist."""
        deleted = await self._store.transaction(partial(_delete, job_id=job_id))
        if deleted:
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


def _delete(connection: Connection, job_id: int) -> bool:
    deleted = connection.execute(
        "DELETE FROM availability_monitor_config WHERE amc_id = %s", (job_id,)
    )
    connection.execute("DELETE FROM job_state WHERE job_id = %s", (job_id,))
    connection.notify(CHANNEL, "deleted")
    return deleted > 0
