"""Places of a topic whose messages Kafka no longer has: where to continue, and what was lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from kafka import TopicPartition

__all__ = ["OFFSETS_MS", "LostPlaces"]

logger = logging.getLogger("monitor.bus")

OFFSETS_MS: Final = 10_000
"""How long a request for offsets may take."""


class LostPlaces:
    """Moves a client of ``topic`` on.

    ``expired`` is called with the number of messages that were deleted before they were read; None
    if reading does not have to be complete.
    """

    def __init__(self, topic: str, expired: Callable[[int], None] | None) -> None:
        self._topic = topic
        self._expired = expired
        # By partition, the offset up to which expired messages are counted.
        self._counted: dict[int, int] = {}

    def clear(self) -> None:
        """Forget what was counted, for another topic of the same name."""
        self._counted.clear()

    def move(self, client: Any, places: Mapping[TopicPartition, int]) -> None:
        """Continue at the earliest message, at places that Kafka does not have."""
        earliest = client.beginning_offsets(list(places), timeout_ms=OFFSETS_MS)
        for place, offset in places.items():
            start = earliest[place]
            if offset >= start:
                logger.warning(
                    "%s, partition %d: offset %d is past the end; reading from the earliest, %d",
                    self._topic, place.partition, offset, start,
                )  # fmt: skip
            elif offset > 0:
                self._count_expired(place.partition, offset, start)
            client.seek(place, start)

    def _count_expired(self, partition: int, offset: int, start: int) -> None:
        if self._expired is None:
            return
        # A rebalance leads to the same place again, until a message after it is stored.
        count = start - max(offset, self._counted.get(partition, 0))
        self._counted[partition] = start
        if count > 0:
            logger.warning(
                "%s, partition %d: Kafka deleted %d messages before they were read (retention);"
                " continuing at offset %d",
                self._topic, partition, count, start,
            )  # fmt: skip
            self._expired(count)

    def after_truncation(self, client: Any, places: Mapping[TopicPartition, Any]) -> None:
        """Continue where the log still agrees with what was read (an unclean leader election)."""
        for place, agreed in places.items():
            logger.warning(
                "%s, partition %d: Kafka lost messages that were read; continuing with its others",
                self._topic, place.partition,
            )  # fmt: skip
            if agreed is None:
                client.seek_to_beginning(place)
            else:
                client.seek(place, agreed.offset)
