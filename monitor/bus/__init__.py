"""Topics: publish, consume, commit. See :mod:`monitor.bus.interface`."""

from __future__ import annotations

from monitor.bus.interface import Assignment, Bus, Consumer, Record
from monitor.bus.settings import BusSettings, KafkaSettings
from monitor.errors import MissingPackageError

__all__ = ["Assignment", "Bus", "BusSettings", "Consumer", "KafkaSettings", "Record", "create_bus"]


def create_bus(settings: BusSettings, kafka: KafkaSettings | None = None) -> Bus:
    """Return the bus that the settings ask for, to be started and closed by the caller."""
    if kafka is None:
        from monitor.bus.spool import SpoolBus

        return SpoolBus(settings)
    try:
        from monitor.bus.kafka import KafkaBus
    except ModuleNotFoundError as error:
        raise MissingPackageError("kafka", error.name or "kafka", "kafka-python") from None
    return KafkaBus(settings, kafka)
