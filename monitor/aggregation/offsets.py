"""How far a topic has been read, stored with what was read.

An offset is a place in one incarnation of a topic only, so the topic's id is stored with it. A
topic that was deleted and created again is read from its beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from monitor.store import Connection, expect_rows

__all__ = ["OffsetsMovedError", "Place", "advance", "stored_places"]


class OffsetsMovedError(Exception):
    """Another consumer has advanced the stored offsets; this one must not write its messages."""


class Place(NamedTuple):
    """The offset to read next, and the id of the topic; None where it is not known."""

    offset: int
    topic_id: str | None

    def start(self, topic_id: str | None) -> int:
        """Return where to read a topic of this id."""
        same = topic_id is None or self.topic_id in (None, topic_id)
        return self.offset if same else 0


def stored_places(connection: Connection, topic: str) -> dict[int, Place]:
    """Return by partition where to continue ``topic``."""
    rows = connection.query(
        "SELECT partition, next_offset, topic_id FROM consumed_offset WHERE topic = %s", (topic,)
    )
    return {partition: Place(offset, topic_id) for partition, offset, topic_id in rows}


def advance(
    connection: Connection,
    topic: str,
    wanted: Mapping[int, Place],
    expected: Mapping[int, Place | None],
) -> bool:
    """Store the places of ``wanted``; False if they are stored already.

    ``expected`` maps each of their partitions to what should be stored before, or None if nothing
    should be. Raises OffsetsMovedError, and stores nothing, if something else is.
    """
    marks = ", ".join(["%s"] * len(wanted))
    lock = " FOR UPDATE" if connection.dialect == "postgresql" else ""
    rows = connection.query(
        "SELECT partition, next_offset, topic_id FROM consumed_offset"  # noqa: S608 - only marks
        f" WHERE topic = %s AND partition IN ({marks}) ORDER BY partition{lock}",
        (topic, *wanted),
    )
    stored = {partition: Place(offset, topic_id) for partition, offset, topic_id in rows}
    if stored == wanted:
        return False
    for partition in sorted(wanted):
        if stored.get(partition) != expected[partition]:
            if partition not in stored and expected[partition] in _visible(connection, topic):
                # A policy that lets it be read, and not be changed.
                expect_rows("consumed_offset", 1)
            raise OffsetsMovedError(
                f"{topic}, partition {partition}: the stored offset is"
                f" {_text(stored.get(partition))}, expected {_text(expected[partition])}"
            )
        # The first consumer of a partition has no row to lock: the second of two inserts fails.
        place = wanted[partition]
        changed = connection.execute(
            "INSERT INTO consumed_offset (topic, partition, next_offset, topic_id)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"
            if expected[partition] is None
            else "UPDATE consumed_offset SET next_offset = %s, topic_id = %s"
            " WHERE topic = %s AND partition = %s",
            (topic, partition, *place)
            if expected[partition] is None
            else (*place, topic, partition),
        )
        if changed != 1:
            if expected[partition] is not None or partition not in stored_places(connection, topic):
                expect_rows("consumed_offset", 1)
            raise OffsetsMovedError(f"{topic}, partition {partition}: another consumer wrote first")
    return True


def _visible(connection: Connection, topic: str) -> Collection[Place | None]:
    return stored_places(connection, topic).values()


def _text(place: Place | None) -> str:
    if place is None:
        return "None"
    return f"{place.offset}" + (f" of topic {place.topic_id}" if place.topic_id else "")
