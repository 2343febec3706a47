"""The part with its bus, and the results that it publishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from monitor.bus import BusSettings, Consumer, create_bus
from monitor.bus.spool import SpoolBus
from monitor.messages import Result, decode_result
from monitor.probes.checks.http import HttpJob
from monitor.probes.job import Job
from monitor.probes.part import Probes
from monitor.probes.settings import ProbesSettings
from tests.waiting import LIMIT_S

__all__ = ["Running", "jobs", "running"]


class Running:
    """A started part, its bus, and the results that it publishes."""

    def __init__(self, part: Probes, consumer: Consumer) -> None:
        self.part = part
        self._consumer = consumer
        self.results: list[Result] = []

    async def more(self, wanted: Callable[[list[Result]], object]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not wanted(self.results):
                for record in await self._consumer.poll():
                    result = decode_result(record.value)
                    assert record.key == str(result.job_id)
                    assert record.headers["ce_id"] == f"{result.job_id}-{result.scheduled_at}"
                    self.results.append(result)

    async def reload(self, settings: ProbesSettings) -> None:
        settings.verify()
        (await self.part.prepare(settings))()


@asynccontextmanager
async def running(settings: ProbesSettings) -> AsyncIterator[Running]:
    settings.verify()
    bus = create_bus(BusSettings())
    assert isinstance(bus, SpoolBus)
    await bus.start()
    part = Probes(settings, bus)
    consumer = bus.consumer(settings.topic, group=None)
    task = None
    try:
        await part.start()
        task = asyncio.create_task(part.run())
        yield Running(part, consumer)
    finally:
        await part.drain()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await part.close()
        await consumer.close()
        await bus.close()


def jobs(count: int, url: str, **fields: Any) -> list[Job]:
    return [HttpJob(id=i, url=url, **{"interval": 0.5, **fields}) for i in range(1, count + 1)]
