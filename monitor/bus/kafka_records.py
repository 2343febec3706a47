"""Messages of Kafka as records of the bus. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from monitor.bus.interface import Record

__all__ = ["record_of"]


def record_of(message: Any) -> Record:
    """Return a message of kafka-python as a record."""
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers}
    key = None if message.key is None else message.key.decode("utf-8", "replace")
    return Record(
        message.topic,
        message.partition,
        message.offset,
        key,
        headers,
        message.value or b"",
        _time(message.timestamp, headers),
    )


def _time(timestamp_ms: int | None, headers: Mapping[str, str]) -> float:
    """Return the time of a record in epoch s; without one that of its event, or 0."""
    if timestamp_ms is not None and timestamp_ms >= 0:
        return timestamp_ms / 1000
    try:
        return datetime.fromisoformat(headers["ce_time"]).timestamp()
    except (KeyError, ValueError):
        return 0.0
