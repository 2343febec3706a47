"""The jobs that are stopped by hand: kept in the database, and stopped in this daemon."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Set
from functools import partial
from typing import Protocol

from monitor.probes.jobs_table import end_pauses, start_job, stop_job
from monitor.probes.runner import Runner
from monitor.store import Connection, Row, Store

__all__ = ["Running", "StoppedJobs"]

_READ_TIMEOUT_S = 3.0
_WRITE_TIMEOUT_S = 10.0


class Running(Protocol):
    """The part that may run the jobs."""

    @property
    def runner(self) -> Runner | None:
        """What runs some of the jobs in this daemon, if anything does."""


class StoppedJobs:
    """The jobs that are stopped, since when and until when.

    Without a ``store`` they are stopped only until a restart.
    """

    def __init__(self, probes: Running, store: Store | None) -> None:
        self.known = False
        """Whether the database was read once."""
        self._probes = probes
        self._store = store
        self._stopped: dict[int, tuple[float, float | None]] = {}
        self._writes = 0

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._stopped

    def ids(self) -> Set[int]:
        """Return the ids of the stopped jobs."""
        return self._stopped.keys()

    def since(self, job_id: int) -> float:
        """Return since when (epoch s) a job is stopped; raises KeyError."""
        return self._stopped[job_id][0]

    def until(self, job_id: int) -> float | None:
        """Return when (epoch s) a job starts again by itself, if it does; raises KeyError."""
        return self._stopped[job_id][1]

    def next_end(self) -> float:
        """Return when (epoch s) the next pause ends; infinite if none does."""
        ends = [until for _, until in self._stopped.values() if until is not None]
        return min(ends, default=float("inf"))

    async def stop(self, job_id: int, until: float | None = None) -> bool:
        """Stop a running job, ``until`` a time; return False if another daemon has already.

        Raises MonitorError if the database fails: then nothing has changed.
        """
        now = time.time()
        stopped = await self._write(partial(stop_job, job_id=job_id, until=until, now=now))
        self._stopped[job_id] = now, until
        self._run(job_id, False)
        return stopped is not False

    async def start(self, job_id: int) -> bool:
        """Start a stopped job. Returns and raises as :meth:`stop` does."""
        started = await self._write(partial(start_job, job_id=job_id))
        self._stopped.pop(job_id, None)
        self._run(job_id, True)
        return started is not False

    async def end_pauses(self, now: float) -> Collection[int]:
        """Start the jobs whose pause has ended, and return them. Raises as :meth:`stop` does."""
        ended = [
            job_id
            for job_id, (_, until) in self._stopped.items()
            if until is not None and until <= now
        ]
        if ended:
            await self._write(partial(end_pauses, now=now))
        for job_id in ended:
            self._stopped.pop(job_id, None)
            self._run(job_id, True)
        return ended

    async def restore(self) -> Collection[int]:
        """Stop and start the jobs that the database says.

        Returns the ids of the jobs that were stopped or started; raises MonitorError.
        """
        if self._store is None:
            return ()
        writes = self._writes
        rows = await self._store.read(_stops, timeout=_READ_TIMEOUT_S)
        if writes != self._writes:
            return ()  # something was written meanwhile, and what was read may be older
        before = self._stopped
        self._stopped = {int(job_id): (float(at), until) for job_id, at, until in rows}
        self.known = True
        both = before.keys() | self._stopped.keys()
        changed = {job_id for job_id in both if before.get(job_id) != self._stopped.get(job_id)}
        for job_id in before.keys() ^ self._stopped.keys():
            self._run(job_id, job_id not in self._stopped)
        return changed

    def apply(self) -> None:
        """Stop the stopped jobs again, after the probes have loaded jobs."""
        for job_id in self._stopped:
            self._run(job_id, False)

    def _run(self, job_id: int, running: bool) -> None:
        runner = self._probes.runner
        if runner is not None:
            with contextlib.suppress(KeyError):  # another producer's
                if running:
                    runner.start_job(job_id)
                else:
                    runner.stop_job(job_id)

    async def _write(self, function: Callable[[Connection], bool]) -> bool | None:
        self._writes += 1
        try:
            if self._store is not None:
                return await self._store.transaction(function, timeout=_WRITE_TIMEOUT_S)
        finally:
            self._writes += 1
        return None


def _stops(connection: Connection) -> list[Row]:
    return connection.query("SELECT job_id, stopped_at, stopped_until FROM job_state")
