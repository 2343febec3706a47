"""Topics: publish, consume, commit. See :mod:`monitor.bus.interface`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from monitor.bus.interface import Assignment, Bus, Consumer, DirectTopic, Record
from monitor.bus.settings import BusSettings, KafkaSettings
from monitor.errors import MissingPackageError, MonitorError

__all__ = [
    "Assignment",
    "Bus",
    "BusSettings",
    "Consumer",
    "DirectTopic",
    "KafkaSettings",
    "Record",
    "create_bus",
    "list_topics",
    "open_topic",
]


def create_bus(settings: BusSettings, kafka: KafkaSettings | None = None) -> Bus:
    """Return the bus for the settings; the caller starts and closes it."""
    if kafka is None:
        from monitor.bus.spool import SpoolBus

        return SpoolBus(settings)
    try:
        from monitor.bus.kafka import KafkaBus
    except ModuleNotFoundError as error:
        raise MissingPackageError("kafka", error.name or "kafka", "kafka-python") from None
    return KafkaBus(settings, kafka)


def open_topic(kafka: KafkaSettings, topic: str, *, configs: Mapping[str, str]) -> DirectTopic:
    """Return a topic of Kafka without the spool; nothing is contacted before it is used.

    ``configs`` are Kafka's settings of the topic if it has to be created.
    """
    try:
        from monitor.bus.kafka_direct import KafkaTopic
    except ModuleNotFoundError as error:
        raise MissingPackageError("kafka", error.name or "kafka", "kafka-python") from None
    return KafkaTopic(kafka, topic, configs=configs)


def list_topics(settings: BusSettings, kafka: KafkaSettings | None = None) -> list[str]:
    """Return the topics of Kafka if it is configured, else those of the spool; blocks.

    Raises UnavailableError if Kafka is unavailable, MonitorError if the spool cannot be read.
    """
    if kafka is not None:
        from monitor.bus.kafka_topics import list_topics as list_kafka_topics

        return list_kafka_topics(kafka)
    import sqlite3

    from monitor.bus.spool_file import SpoolFile
    from monitor.sqlite.own_file import DamagedFileError, ForeignFileError

    path = settings.path()
    if not path.is_file():
        hint = "has the daemon run with this config?"
        if not Path(settings.file).is_absolute():
            hint += " under systemd its STATE_DIRECTORY may be different"
        raise MonitorError(f"there is no spool {path}; {hint}")
    try:
        file = SpoolFile(path, max_bytes=settings.max_bytes)
    except ForeignFileError:
        raise MonitorError(f"{path} is not a spool") from None
    except (sqlite3.Error, UnicodeDecodeError, DamagedFileError) as error:
        raise MonitorError(f"cannot read the spool {path}: {error}") from None
    try:
        return file.topics()
    finally:
        file.close()
