"""The part in this process, with a spool and a store, and results to judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from monitor.alerts.incidents import Incident
from monitor.alerts.jobs import JobFacts
from monitor.alerts.part import Alerts
from monitor.alerts.reading import list_incidents
from monitor.alerts.settings import AlertsSettings
from monitor.bus import BusSettings
from monitor.bus.spool import SpoolBus
from monitor.part import State
from monitor.store import DatabaseSettings, Store, open_store
from tests.waiting import until

TOPIC = "website_availability"


class Jobs:
    """Jobs that a test sets."""

    def __init__(self, *facts: JobFacts) -> None:
        self.facts: Mapping[int, JobFacts] | None = {each.id: each for each in facts} or None

    async def run(self) -> None:
        await asyncio.Event().wait()

    def all(self) -> Mapping[int, JobFacts] | None:
        return self.facts


class Clock:
    """The time of day, which a test can step."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def settings(**keys: Any) -> AlertsSettings:
    """Return verified settings from what YAML would have."""
    found = msgspec.convert(AlertsSettings.completed(keys), AlertsSettings)
    found.verify()
    return found


def webhook(url: str, *rules: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
    """Return settings with one webhook that every rule sends to, and no wait."""
    return {
        "group_wait": 0,
        "receivers": [{"name": "hook", "webhook": url}],
        "rules": [{"receivers": ["hook"], **rule} for rule in rules or (SITE,)],
        **keys,
    }


SITE = {"name": "site down", "watch": "site", "failures": 2}


def result(job_id: int, at: float, *, up: bool, **fields: Any) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "url": f"https://{job_id}.example.org/",
        "scheduled_at": at,
        "checked_at": at,
        "up": up,
        "error": None if up else "timeout",
        **fields,
    }


@dataclass
class Running:
    part: Alerts
    bus: SpoolBus
    store: Store
    task: asyncio.Task[None]
    jobs: Jobs
    clock: Clock
    states: dict[str, State]
    connected: list[bool]
    _scheduled: float = field(default_factory=time.time)

    async def ready(self) -> None:
        """Wait until it judges: what is published before is old."""
        await until(
            lambda: (
                all(
                    reader.partitions and not reader.catching_up
                    for reader in self.part._readers.values()
                )
                and self.part._readers
            )
        )

    async def publish(self, *values: Mapping[str, Any]) -> None:
        for value in values:
            self.bus.publish(
                TOPIC,
                key=str(value["job_id"]),
                value=json.dumps(value).encode(),
                headers={},
            )
        assert await self.bus.committed()

    async def check(self, *states: tuple[int, bool], **fields: Any) -> None:
        """Publish a result of each job, each with the next scheduled time."""
        values = []
        for job_id, up in states:
            self._scheduled += 0.001
            values.append(result(job_id, self._scheduled, up=up, **fields))
        await self.publish(*values)

    async def incidents(self) -> Sequence[Incident]:
        """Return all incidents, the oldest first."""
        found = await self.store.read(lambda c: list_incidents(c, limit=100_000))
        return [incident for _, incident in reversed(found)]

    async def until(self, condition: Callable[[Sequence[Incident]], object]) -> Sequence[Incident]:
        """Wait until a condition of the incidents holds, and return them."""
        async with asyncio.timeout(60):
            while not condition(found := await self.incidents()):
                await asyncio.sleep(0.02)
            return found

    async def reload(self, new: AlertsSettings) -> None:
        (await self.part.prepare(new))()


@contextlib.asynccontextmanager
async def running(
    directory: Path,
    config: Mapping[str, Any],
    *facts: JobFacts,
    database: DatabaseSettings | None = None,
    clock: Clock | None = None,
    me: str = "here",
    wait: bool = True,
) -> AsyncIterator[Running]:
    bus = SpoolBus(BusSettings(file=str(directory / "spool.db")))
    store = open_store(database or DatabaseSettings(file=str(directory / "monitor.db")))
    await store.migrate()
    await bus.start()
    clock = clock or Clock()
    jobs, states, connected = Jobs(*facts), dict[str, State](), [True]
    part = Alerts(
        settings(**config),
        bus=bus,
        store=store,
        jobs=jobs,
        parts=lambda: states,
        connected=lambda: connected[0],
        clock=clock,
        me=me,
    )
    await part.check()
    await part.start()
    task = asyncio.create_task(part.run())
    now = Running(part, bus, store, task, jobs, clock, states, connected)
    try:
        if wait:
            await now.ready()
        yield now
    finally:
        if task.done():
            task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await part.close()
        await store.close()
        await bus.close()
