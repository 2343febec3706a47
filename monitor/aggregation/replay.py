"""Rejected messages: lists them, and tries them again after a mend.

A message is counted and removed from ``rejected_message`` in one transaction, so that it is counted
exactly once, however often and by however many it is tried.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from monitor.aggregation.batch import Batch
from monitor.aggregation.intake import parse_result
from monitor.aggregation.refusals import RefusedError, blaming_the_tables
from monitor.aggregation.settings import AggregationSettings
from monitor.aggregation.writer import count_results, prepare_results
from monitor.messages import Result
from monitor.store import Connection, Row, Store, expect_rows
from monitor.store.cursor import cursor_of

__all__ = ["Place", "RejectedMessage", "Replayed", "Which", "rejected_messages", "replay"]

# Messages in one transaction. On SQLite all other writers wait for it.
_STEP = {"postgresql": 500, "sqlite": 50}
_SHOWN_BYTES = 4096

Place = tuple[str, int, int]
"""Topic, partition and offset."""


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages: None for all. ``reason`` is the stable word."""

    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    reason: str | None = None


class RejectedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was not counted; ``payload`` is the beginning of it as text."""

    topic: str
    partition: int
    offset: int
    rejected_at: float
    reason: str
    size_bytes: int
    payload: str
    headers: dict[str, str] | None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What another try gave: counted now, counted before, and rejected again.

    With a ``cursor`` there are more messages, to try next.
    """

    counted: int = 0
    duplicates: int = 0
    rejected: int = 0
    cursor: str | None = None


class _Step(NamedTuple):
    last: Place | None
    replayed: Replayed


def rejected_messages(
    connection: Connection, which: Which, *, before: tuple[float, str, int, int] | None, limit: int
) -> list[RejectedMessage]:
    """Return the messages, those rejected last first; ``before`` is the end of the page before."""
    condition, parameters = _condition(which)
    if before is not None:
        condition += ' AND (rejected_at, topic, partition, "offset") < (%s, %s, %s, %s)'
        parameters += before
    rows = connection.query(
        'SELECT topic, partition, "offset", rejected_at, reason, payload, headers'  # noqa: S608
        f" FROM rejected_message WHERE {condition}"
        ' ORDER BY rejected_at DESC, topic DESC, partition DESC, "offset" DESC LIMIT %s',
        (*parameters, limit),
    )
    return [_shown(row) for row in rows]


async def replay(
    store: Store,
    settings: AggregationSettings,
    which: Which,
    *,
    after: Place | None = None,
    patience_s: float = math.inf,
    now: float | None = None,
) -> Replayed:
    """Try messages again, in short transactions, those behind the place ``after``.

    Begins no transaction when ``patience_s`` have passed. Raises MonitorError if the database is
    unavailable; what was counted stays counted. ``now`` is in s since the epoch.
    """
    at = time.time() if now is None else now
    until = time.monotonic() + patience_s
    total, most = Replayed(), _STEP[store.dialect]
    limit = most
    while True:

        def step(connection: Connection, after: Place | None = after, limit: int = limit) -> _Step:
            return _replay(connection, settings, which, after=after, limit=limit, now=at)

        def skip(connection: Connection, after: Place | None = after) -> Place | None:
            rows = _select(connection, which, after, "reason", 1)
            return rows[0][:3] if rows else None

        try:
            done = await store.transaction(step)
        except RefusedError:
            if limit > 1:
                limit = 1
                continue
            # No column can hold a value of the next one: it stays.
            done = _Step(await store.transaction(skip), Replayed(rejected=1))
        if done.last is None:
            return total
        total = Replayed(
            counted=total.counted + done.replayed.counted,
            duplicates=total.duplicates + done.replayed.duplicates,
            rejected=total.rejected + done.replayed.rejected,
        )
        after, limit = done.last, most
        if time.monotonic() >= until:
            return msgspec.structs.replace(total, cursor=cursor_of(*after))


def _replay(
    connection: Connection,
    settings: AggregationSettings,
    which: Which,
    *,
    after: Place | None,
    limit: int,
    now: float,
) -> _Step:
    rows = _select(connection, which, after, "reason, payload, headers", limit)
    if not rows:
        return _Step(None, Replayed())
    results: list[Result] = []
    done: list[Place] = []
    changed: list[tuple[str, Place]] = []
    for topic, partition, offset, reason, payload, headers in rows:
        place = (topic, partition, offset)
        found = _parse(bytes(payload), headers, reason, settings, now)
        if isinstance(found, Result):
            results.append(found)
            done.append(place)
        elif found != reason:
            changed.append((found, place))
    prepared = prepare_results(
        Batch([]), results, settings.granularities, connection.dialect, settings.measures()
    )
    with blaming_the_tables(connection):
        counted = len(count_results(connection, prepared))
        if done:
            marks = ", ".join(["(%s, %s, %s)"] * len(done))
            deleted = connection.execute(
                "DELETE FROM rejected_message"  # noqa: S608 - only marks
                f' WHERE (topic, partition, "offset") IN (VALUES {marks})',
                tuple(itertools.chain(*done)),
            )
            expect_rows("rejected_message", len(done) - deleted)
        for reason, place in changed:
            connection.execute(
                "UPDATE rejected_message SET reason = %s"
                ' WHERE topic = %s AND partition = %s AND "offset" = %s',
                (reason, *place),
            )
    replayed = Replayed(
        counted=counted, duplicates=len(done) - counted, rejected=len(rows) - len(done)
    )
    return _Step(rows[-1][:3], replayed)


def _parse(
    payload: bytes, headers: str | None, reason: str, settings: AggregationSettings, now: float
) -> Result | str:
    if headers is None and reason.startswith("unknown-"):
        # An earlier version did not keep the headers, which say what this is.
        return reason
    known: dict[str, str] = {} if headers is None else json.loads(headers)
    return parse_result(payload, known, now=now, keep_s=settings.keep_results)


def _select(
    connection: Connection, which: Which, after: Place | None, columns: str, limit: int
) -> Sequence[Row]:
    # The replays of others wait for these rows, and find them gone.
    lock = " FOR UPDATE" if connection.dialect == "postgresql" else ""
    condition, parameters = _condition(which)
    if after is not None:
        condition += ' AND (topic, partition, "offset") > (%s, %s, %s)'
        parameters += after
    return connection.query(
        f'SELECT topic, partition, "offset", {columns} FROM rejected_message'  # noqa: S608
        f' WHERE {condition} ORDER BY topic, partition, "offset" LIMIT %s{lock}',
        (*parameters, limit),
    )


def _condition(which: Which) -> tuple[str, tuple[Any, ...]]:
    conditions, parameters = ["1 = 1"], []
    for column, value in (
        ("topic", which.topic),
        ("partition", which.partition),
        ('"offset"', which.offset),
    ):
        if value is not None:
            conditions.append(f"{column} = %s")
            parameters.append(value)
    if which.reason is not None:
        conditions.append("(reason = %s OR substr(reason, 1, %s) = %s)")
        parameters += [which.reason, len(which.reason) + 1, f"{which.reason}:"]
    return " AND ".join(conditions), tuple(parameters)


def _shown(row: Row) -> RejectedMessage:
    topic, partition, offset, rejected_at, reason, payload, headers = row
    content = bytes(payload)
    return RejectedMessage(
        topic=topic,
        partition=partition,
        offset=offset,
        rejected_at=rejected_at,
        reason=reason,
        size_bytes=len(content),
        payload=content[:_SHOWN_BYTES].decode(errors="replace"),
        headers=None if headers is None else json.loads(headers),
    )
