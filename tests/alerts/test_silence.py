"""The watch for missing results, look by look, on a real store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from monitor.alerts.incidents import Incident
from monitor.alerts.jobs import JobFacts
from monitor.alerts.reading import list_incidents
from monitor.alerts.settings import Rule, SilenceRule
from monitor.alerts.watching import SilenceWatch
from monitor.store import DatabaseSettings, Store, open_store
from tests.alerts.running import Clock

JOBS = {1: JobFacts(id=1, name="one", url="http://1/", interval=60, timeout=10)}


class Watched:
    """A watch, and what it sees; each look may be the first of a new one."""

    def __init__(self, store: Store) -> None:
        self.clock = Clock()
        self.rules: list[Rule] = [SilenceRule(name="no results", intervals=3)]
        self.jobs: dict[int, JobFacts] | None = JOBS
        self.seen: dict[int, float] = {}
        self.catching_up = False
        self._store = store
        self.restart()

    def restart(self) -> None:
        self._watch = SilenceWatch(
            self._store,
            rules=lambda: self.rules,
            jobs=lambda: self.jobs,
            seen=lambda: self.seen,
            catching_up=lambda: self.catching_up,
            group_wait=lambda: 0.0,
            clock=self.clock,
        )

    async def look(self, after_s: float = 0.0) -> list[Incident]:
        """Return all incidents after a look that comes so long after the last one."""
        self.clock.ahead += after_s
        await self._watch._turn()
        return [each for _, each in await self._store.read(list_incidents)]


@contextlib.asynccontextmanager
async def watched(directory: Path) -> AsyncIterator[Watched]:
    store = open_store(DatabaseSettings(file=str(directory / "monitor.db")))
    await store.migrate()
    try:
        yield Watched(store)
    finally:
        await store.close()


async def test_a_rule_that_comes_back_waits_for_new_results(tmp_path: Path) -> None:
    async with watched(tmp_path) as now:
        rules = now.rules
        assert await now.look() == []
        # Nobody notes results in between.
        now.rules = []
        assert await now.look(600) == []
        now.rules = rules
        assert await now.look(600) == []
        assert len(await now.look(200)) == 1


async def test_what_is_open_stays_open_while_jobs_and_results_are_not_known_yet(
    tmp_path: Path,
) -> None:
    async with watched(tmp_path) as now:
        await now.look()
        (opened,) = await now.look(200)
        now.restart()
        now.jobs = None
        assert await now.look() == [opened]
        now.jobs, now.catching_up = JOBS, True
        assert await now.look() == [opened]
        now.catching_up = False
        assert await now.look() == [opened]
        now.seen[1] = now.clock() + 1
        (ended,) = await now.look(1)
        assert ended.resolved_at is not None


async def test_the_end_of_an_incident_says_that_its_rule_was_removed(tmp_path: Path) -> None:
    async with watched(tmp_path) as now:
        await now.look()
        await now.look(200)
        now.rules = []
        (ended,) = await now.look()
        assert ended.resolved_at is not None
        assert ended.reason.endswith("; the rule was removed")
