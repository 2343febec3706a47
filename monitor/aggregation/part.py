"""The aggregation as a part of the daemon: it consumes results, and purges what is too old."""

# ruff: noqa: D102 - Part documents the methods

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from typing import ClassVar

from monitor.aggregation.consuming import Consuming
from monitor.aggregation.retention import purge
from monitor.aggregation.settings import AggregationSettings
from monitor.bus import Bus
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog
from monitor.metrics import Metric
from monitor.part import Health, Part, State
from monitor.store import Store

__all__ = ["Aggregation"]

logger = logging.getLogger("monitor.aggregation")

_PURGE_INTERVAL_S = 300.0


class Aggregation(Part):
    """The part ``aggregation``: consumes the topic of the results.

    ``clock`` returns s since the epoch. It decides which results are too old or in the future.
    """

    name: ClassVar[str] = "aggregation"

    def __init__(
        self,
        settings: AggregationSettings,
        *,
        bus: Bus,
        store: Store,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._consuming = Consuming(settings, bus=bus, store=store, clock=clock)
        self.statistics = self._consuming.statistics

    async def start(self) -> None:
        """Do nothing: the daemon opens the bus and the store."""

    async def run(self) -> None:
        """Consume and purge until cancelled, or until drained."""
        async with asyncio.TaskGroup() as tasks:
            retaining = tasks.create_task(self._retain(), name="aggregation:retain")
            await self._consuming.run()
            retaining.cancel()
        await asyncio.Event().wait()  # drained: wait for the daemon to cancel this task

    async def drain(self) -> None:
        """Write all messages that have been read, and leave the group."""
        await self._consuming.drain()

    async def close(self) -> None:
        self._consuming.close()

    def partitions(self) -> list[int]:
        """Return the partitions that are assigned to this consumer."""
        return self._consuming.partitions

    @property
    def settings(self) -> AggregationSettings:
        """The settings in force."""
        return self._settings

    def functions(self) -> dict[str, list[str]]:
        """Return what is wanted of each measured field."""
        return {each.field: list(each.functions) for each in self._settings.fields}

    def waiting(self) -> int:
        """Return how many messages have been read and wait for a batch."""
        return self._consuming.waiting

    def state(self) -> State:
        """Return lag and counts; degraded while writing to the database fails."""
        consuming = self._consuming
        if consuming.outage.problem is not None:
            return State(Health.DEGRADED, consuming.outage.summary)
        if consuming.stopping.is_set():
            return State(Health.STOPPING)
        if not consuming.partitions:
            return State(Health.STARTING, "waiting for partitions")
        return State(Health.OK, self.statistics.summary())

    def metrics(self) -> Iterable[Metric]:
        return self.statistics.metrics()

    async def prepare(self, settings: AggregationSettings) -> Callable[[], None]:
        adopted = self._settings.adopting(settings)

        def switch() -> None:
            self._settings = adopted
            self._consuming.adopt(adopted)

        return switch

    async def _retain(self) -> None:
        outage = OutageLog(logger)
        while True:
            try:
                purged = await purge(self._store, self._settings, now=self._clock())
                outage.recovered("purging resumed")
                logger.debug("purged %s", purged)
            except MonitorError as error:
                outage.failed(f"cannot purge: {error}", cause=error)
            await asyncio.sleep(_PURGE_INTERVAL_S * random.uniform(0.8, 1.2))  # noqa: S311
