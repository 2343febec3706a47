"""Which messages of a topic are judged, which are only remembered, and which are late. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from monitor.bus import Record

__all__ = ["Intake", "SortedRecords"]

# What was published longer ago than this is late.
_LATE_S = 30.0


class SortedRecords(NamedTuple):
    """Messages that were read: ``known`` were judged before, ``new`` are to be judged.

    ``late`` says of each new one whether it is late. ``judged`` is by partition the offset to read
    next.
    """

    known: Sequence[Record]
    new: Sequence[Record]
    late: Sequence[bool]
    judged: Mapping[int, int]


class Intake:
    """The partitions of a topic: where each begins, and which are behind.

    Times are s since the epoch.
    """

    def __init__(self) -> None:
        # By partition, what is to be read; messages before it were judged, and are remembered.
        self._start: dict[int, int] = {}
        # By partition, before when messages are not judged: it was never read before.
        self._begin: dict[int, float] = {}
        self._assigned_at: dict[int, float] = {}
        # Partitions that still bring messages from before they could be read.
        self.behind: set[int] = set()

    def begin_at(self, start: dict[int, int], begin: dict[int, float], *, now: float) -> None:
        """Continue each partition at its offset in ``start``.

        Messages from before its time in ``begin`` are not judged.
        """
        self._start = dict(start)
        self._begin = begin
        for place in start:
            if place not in self._assigned_at:
                self._assigned_at[place] = now
                self.behind.add(place)

    def forget(self, places: Iterable[int]) -> None:
        """Forget partitions that another instance reads."""
        for place in places:
            self._assigned_at.pop(place, None)
            self.behind.discard(place)

    def take(self, records: Sequence[Record], *, now: float) -> SortedRecords:
        """Sort messages that were read at the time ``now``."""
        known: Sequence[Record] = ()
        if self._start:
            known, records = self._unjudged(records)
        judged = {record.partition: record.offset + 1 for record in records}
        if self._begin:
            records = self._begun(records)
        return SortedRecords(known, records, self._late(records, now), judged)

    def _late(self, records: Sequence[Record], now: float) -> list[bool]:
        old = now - _LATE_S
        late_before = {place: max(at, old) for place, at in self._assigned_at.items()}
        late = [record.timestamp < late_before.get(record.partition, old) for record in records]
        if self.behind:
            self.behind.difference_update(
                record.partition
                for record, is_late in zip(records, late, strict=True)
                if not is_late
            )
        return late

    def _unjudged(self, records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Record]]:
        """Return the messages that were judged before, and the others."""
        known: list[Record] = []
        new: list[Record] = []
        for record in records:
            is_known = record.offset < self._start.get(record.partition, 0)
            (known if is_known else new).append(record)
        for place in {record.partition for record in new}:
            self._start.pop(place, None)
        return known, new

    def _begun(self, records: Sequence[Record]) -> Sequence[Record]:
        """Return the messages to judge; a partition begins with the first of them."""
        begun = []
        for record in records:
            begin = self._begin.get(record.partition)
            if begin is not None:
                if record.timestamp < begin:
                    continue
                del self._begin[record.partition]
            begun.append(record)
        return begun
