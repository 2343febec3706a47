"""Messages that have been read and not yet written, in the order of reading. Pure."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from monitor.aggregation.intake import parse_result
from monitor.aggregation.offsets import Place
from monitor.bus import Record
from monitor.messages import Result, encode

__all__ = ["Batch", "Entry", "Pending", "Rejected", "parse_records"]


class Rejected(NamedTuple):
    """A message that is not a valid result; ``reason`` starts with a stable word.

    ``headers`` are JSON; None for a payload that was a result.
    """

    reason: str
    payload: bytes
    headers: str | None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A parsed message with its position in the topic.

    Tens of thousands of them wait at a time. They are not tracked by the garbage collector, which
    stops all threads while it scans objects.
    """

    partition: int
    offset: int
    content: Result | Rejected
    size_bytes: int

    def older(self, oldest: float) -> Entry:
        """Return this entry, rejected if it is a result scheduled before ``oldest``."""
        content = self.content
        if isinstance(content, Rejected) or content.scheduled_at >= oldest:
            return self
        reason = f"too-old: scheduled at {content.scheduled_at:.3f}"
        rejected = Rejected(reason, encode(content))
        return Entry(self.partition, self.offset, rejected, self.size_bytes)


def parse_records(records: Iterable[Record], *, now: float, keep_s: float) -> list[Entry]:
    """Parse ``records`` in order, at the time ``now`` (s since the epoch)."""
    entries = []
    for record in records:
        value = record.value
        parsed = parse_result(value, record.headers, now=now, keep_s=keep_s)
        content: Result | Rejected
        if isinstance(parsed, str):
            content = Rejected(parsed, value, _as_text(record.headers))
        else:
            content = parsed
        entries.append(Entry(record.partition, record.offset, content, len(value)))
    return entries


def _as_text(headers: Mapping[str, str]) -> str:
    # In ASCII: databases store neither NUL nor half a surrogate pair.
    return json.dumps(dict(headers))


class Batch:
    """The messages that one transaction writes."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        # By partition, the offset to read next once this batch is written.
        self.next_offsets = {entry.partition: entry.offset + 1 for entry in entries}
        self.size_bytes = sum(entry.size_bytes for entry in entries)

    def __len__(self) -> int:
        return len(self.entries)

    def next_places(self, topic_id: str | None) -> dict[int, Place]:
        """Return the same as places in the topic of this id."""
        return {part: Place(offset, topic_id) for part, offset in self.next_offsets.items()}

    def results(self) -> list[Result]:
        """Return the results, in order."""
        return [entry.content for entry in self.entries if isinstance(entry.content, Result)]

    def rejected(self) -> list[tuple[int, int, Rejected]]:
        """Return partition, offset and reason of the rejected messages."""
        return [
            (entry.partition, entry.offset, entry.content)
            for entry in self.entries
            if isinstance(entry.content, Rejected)
        ]

    def without_older(self, oldest: float) -> Batch:
        """Return the batch with results scheduled before ``oldest`` rejected."""
        if all(result.scheduled_at >= oldest for result in self.results()):
            return self
        return Batch([entry.older(oldest) for entry in self.entries])

    def halves(self) -> tuple[Batch, Batch]:
        """Split a batch of two or more into two, to write one after the other."""
        middle = len(self.entries) // 2
        return Batch(self.entries[:middle]), Batch(self.entries[middle:])


class Pending:
    """Messages that wait for a batch.

    ``since`` is the time, on the caller's clock, when the oldest was added; None when empty.
    """

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self.size_bytes = 0
        self.since: float | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entries: Collection[Entry], *, clock: float) -> None:
        """Append messages that were read."""
        self._entries.extend(entries)
        self.size_bytes += sum(entry.size_bytes for entry in entries)
        if self.since is None and self._entries:
            self.since = clock

    def take(self, limit: int) -> Batch:
        """Remove and return the oldest messages, ``limit`` at most."""
        entries = [self._entries.popleft() for _ in range(min(limit, len(self._entries)))]
        batch = Batch(entries)
        self.size_bytes -= batch.size_bytes
        if not self._entries:
            self.since = None
        return batch

    def drop(self) -> None:
        """Drop all messages."""
        self._entries.clear()
        self.size_bytes = 0
        self.since = None
