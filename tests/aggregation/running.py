"""The part in one process, with the spool and a database."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.aggregation.part import Aggregation
from monitor.aggregation.settings import AggregationSettings
from monitor.bus import BusSettings
from monitor.bus.spool import SpoolBus
from monitor.store import DatabaseSettings, Store, open_store
from tests.aggregation.plain import TOPIC, Tables, read_tables

__all__ = ["NEVER_S", "NOW", "Running", "running"]

NOW = 1_700_000_000.0
NEVER_S = 3600.0


@dataclass
class Running:
    part: Aggregation
    bus: SpoolBus
    store: Store
    task: asyncio.Task[None]

    async def publish(self, *values: dict[str, Any] | bytes) -> None:
        for value in values:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.bus.publish(TOPIC, value=data, headers={})
        assert await self.bus.committed()

    async def tables(self) -> Tables:
        return await self.store.read(read_tables)


@contextlib.asynccontextmanager
async def running(
    directory: Path, *, database: DatabaseSettings | None = None, **settings: Any
) -> AsyncIterator[Running]:
    bus = SpoolBus(BusSettings(file=str(directory / "spool.db")))
    store = open_store(database or DatabaseSettings(file=str(directory / "monitor.db")))
    await bus.start()
    part = Aggregation(AggregationSettings(**settings), bus=bus, store=store, clock=lambda: NOW)
    await part.start()
    task = asyncio.create_task(part.run())
    try:
        yield Running(part, bus, store, task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await part.close()
        await store.close()
        await bus.close()
