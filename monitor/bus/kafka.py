"""The bus with Kafka: the spool is its outbox, and consumers read from Kafka."""

# ruff: noqa: D102 - interface.py documents the methods

from __future__ import annotations

import asyncio
import logging

from monitor.bus.interface import Assignment, Consumer
from monitor.bus.kafka_consumer import TopicConsumer
from monitor.bus.kafka_forwarder import Forwarder
from monitor.bus.settings import BusSettings, KafkaSettings
from monitor.bus.spool import SpoolBus
from monitor.part import Health, State

__all__ = ["KafkaBus"]

logger = logging.getLogger("monitor.bus")

_STOP_S = 2.0


class KafkaBus(SpoolBus):
    """A spool whose messages are forwarded to Kafka."""

    def __init__(self, settings: BusSettings, kafka: KafkaSettings) -> None:
        super().__init__(settings)
        self._kafka = kafka
        self._consumer_trouble: str | None = None
        self._forwarder = Forwarder(
            kafka,
            self._path,
            max_bytes=self._max_bytes,
            refused=self.count_dropped,
        )

    async def start(self) -> None:
        await super().start()
        self._forwarder.start()

    def _tell_news(self) -> None:
        self._forwarder.wake()

    def consumer(
        self, topic: str, *, group: str | None, assignment: Assignment | None = None
    ) -> Consumer:
        return TopicConsumer(
            self._kafka, topic, group=group, assignment=assignment, trouble=self._set_trouble
        )

    def _set_trouble(self, trouble: str | None) -> None:
        self._consumer_trouble = trouble

    def state(self) -> State:
        spool = super().state()
        if spool.health is not Health.OK:
            return spool
        trouble = self._forwarder.outage.problem or self._consumer_trouble
        if trouble is not None:
            return State(Health.DEGRADED, f"{trouble}; {spool.summary}")
        return spool

    async def close(self) -> None:
        await super().close()
        await asyncio.to_thread(self._forwarder.stop, _STOP_S)
