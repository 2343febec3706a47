"""Messages of Kafka as records of the bus. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from monitor.bus.interface import Record

__all__ = ["event_time", "record_of", "text_of"]


def record_of(place: tuple[str, int], message: Any) -> Record:
    """Return a message that kafka-python decoded, at a topic and partition, as a record."""
    headers = {name: text_of(value or b"") for name, value in message.headers}
    ms = message.timestamp
    return Record(
        *place,
        message.offset,
        None if message.key is None else text_of(message.key),
        headers,
        message.value or b"",
        event_time(headers) if ms is None or ms < 0 else ms / 1000,
    )


def text_of(data: bytes) -> str:
    """Return what should be UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode(errors="replace")


def event_time(headers: Mapping[str, str]) -> float:
    """Return the time of an event in epoch s, for a record without one, or 0."""
    try:
        return datetime.fromisoformat(headers["ce_time"]).timestamp()
    except (KeyError, ValueError):
        return 0.0
