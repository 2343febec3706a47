"""The bus with Kafka: the spool is its outbox, and consumers read from Kafka."""

# ruff: noqa: D102 - interface.py documents the methods

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

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
        # By consumer, what is wrong.
        self._troubles: dict[object, str] = {}
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
        mine = object()

        def trouble(text: str | None) -> None:
            if text is None:
                self._troubles.pop(mine, None)
            else:
                self._troubles[mine] = text

        def expired(count: int) -> None:
            self._expired[topic] = self._expired.get(topic, 0) + count

        if group is not None:
            self._expired.setdefault(topic, 0)
        return TopicConsumer(
            self._kafka,
            topic,
            group=group,
            assignment=assignment,
            expired=expired,
            trouble=trouble,
        )

    def troubles(self) -> Sequence[str]:
        return list(dict.fromkeys(self._troubles.values()))

    def state(self) -> State:
        spool = super().state()
        if spool.health is not Health.OK:
            return spool
        # A problem of Kafka itself is the same for all.
        troubles = dict.fromkeys((*self._forwarder.problems(), *self.troubles()))
        if troubles:
            return State(Health.DEGRADED, f"{'; '.join(troubles)}; {spool.summary}")
        return spool

    async def close(self) -> None:
        await super().close()
        await asyncio.to_thread(self._forwarder.stop, _STOP_S)
