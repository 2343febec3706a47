"""The SQL that judges write with: offsets, states and incidents, in one transaction.

For both databases; runs in threads of the store. ``source`` and ``place`` of an offset are a topic
and a partition, or for what is not on the bus a name and 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from monitor.alerts.incidents import Changes, Opened, State
from monitor.store import Connection

__all__ = [
    "CHANNEL",
    "MovedError",
    "Offset",
    "begin",
    "execute_many",
    "hold_incidents",
    "load_offsets",
    "load_states",
    "note_seen",
    "write",
    "write_changes",
]

CHANNEL = "alert"
"""Gets a notification of each commit that changes incidents."""

_IN_ONE_QUERY = 500
_encode = msgspec.json.Encoder().encode
_decode_state = msgspec.json.Decoder(State).decode
_INCIDENT_COLUMNS = (
    "id",
    "rule",
    "watch",
    "subject",
    "job_id",
    "title",
    "reason",
    "opened_at",
    "caused_at",
    "noted_at",
    "late",
    "resolved_at",
    "look_at",
    "changed_at",
)


class MovedError(Exception):
    """Another instance has advanced the offsets; this one must not write its changes."""


def execute_many(connection: Connection, sql: str, rows: Iterable[Sequence[Any]]) -> None:
    """Run one statement with each of ``rows``, in few round trips."""
    if connection.dialect == "postgresql":
        from psycopg2.extras import execute_batch

        with connection.raw.cursor() as cursor:
            execute_batch(cursor, sql, rows, page_size=_IN_ONE_QUERY)
    else:
        connection.raw.executemany(sql.replace("%s", "?"), rows)


class Offset(NamedTuple):
    """The offset to read next, since when its place is read, and the topic's id, if known.

    A topic that is deleted and created again has another id, and other messages at its offsets.
    """

    next_offset: int
    began_at: float
    topic_id: str | None

    def start(self, topic_id: str | None) -> int:
        """Return where to read a topic of this id."""
        same = topic_id is None or self.topic_id in (None, topic_id)
        return self.next_offset if same else 0


def begin(
    connection: Connection, source: str, places: Iterable[int], now: float
) -> dict[int, Offset]:
    """Return what is stored of each place, which may be its beginning.

    A place that was never read begins now: what was published before is not judged.
    """
    connection.insert(
        "alert_offset",
        ("source", "place", "next_offset", "began_at"),
        [(source, place, 0, now) for place in places],
        "ON CONFLICT DO NOTHING",
    )
    return load_offsets(connection, source)


def hold_incidents(connection: Connection, *, alone: bool) -> None:
    """Keep plans and changes of incidents apart until the end of the transaction.

    Who plans is ``alone``: it writes what it has decided on rows that it read. An end that another
    transaction noted in between would be overwritten, and never be sent. SQLite has one writer.
    """
    if connection.dialect == "postgresql":
        lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        connection.query(
            f"SELECT {lock}(hashtext(current_schema() || %s))",
            (" incidents",),
        )


def load_offsets(connection: Connection, source: str) -> dict[int, Offset]:
    """Return what is stored of each place of a source."""
    rows = connection.query(
        "SELECT place, next_offset, began_at, note FROM alert_offset WHERE source = %s", (source,)
    )
    return {place: Offset(*values) for place, *values in rows}


def load_states(
    connection: Connection, source: str, places: Sequence[int]
) -> list[tuple[str, str, State]]:
    """Return rule, subject and state of all states of some places."""
    rows = connection.query(
        "SELECT rule, subject, state, place FROM alert_state WHERE source = %s", (source,)
    )
    return [
        (rule, subject, _decode_state(state))
        for rule, subject, state, place in rows
        if place in places
    ]


def write(
    connection: Connection,
    changes: Changes,
    *,
    source: str,
    places: Mapping[tuple[str, str], int],
    expected: Mapping[int, int],
    wanted: Mapping[int, int],
    topic_id: str | None,
    now: float,
    look_at: float,
) -> dict[str, str]:
    """Write changes and advance the offsets from ``expected`` to ``wanted``, of a topic.

    ``places`` has the place of each state. Raises MovedError, and writes nothing, if other offsets
    are stored. Returns what :func:`write_changes` does.
    """
    lock = " FOR UPDATE" if connection.dialect == "postgresql" else ""
    rows = connection.query(
        "SELECT place, next_offset FROM alert_offset"  # noqa: S608 - our own text
        f" WHERE source = %s ORDER BY place{lock}",
        (source,),
    )
    stored: dict[int, int] = dict(rows)
    for place, offset in expected.items():
        if stored.get(place) != offset:
            raise MovedError(
                f"{source}, partition {place}: the stored offset is {stored.get(place)},"
                f" expected {offset}"
            )
    execute_many(
        connection,
        "UPDATE alert_offset SET next_offset = %s, note = %s WHERE source = %s AND place = %s",
        [(offset, topic_id, source, place) for place, offset in wanted.items()],
    )
    return write_changes(
        connection, changes, source=source, places=places, now=now, look_at=look_at
    )


def write_changes(
    connection: Connection,
    changes: Changes,
    *,
    source: str,
    places: Mapping[tuple[str, str], int],
    now: float,
    look_at: float,
) -> dict[str, str]:
    """Write states and incidents; the notifier looks at these at ``look_at``.

    A rule has at most one open incident of a subject. If there is one already, it stays, and the
    returned mapping has its id by that of the new one.
    """
    if changes.opened or changes.resolved:
        hold_incidents(connection, alone=False)
    # Ends first: an incident may begin, end, and begin again within one batch.
    execute_many(
        connection,
        "UPDATE alert_incident SET resolved_at = %s, look_at = %s, changed_at = %s,"
        " reason = reason || %s WHERE id = %s AND resolved_at IS NULL",
        [
            (end.at, look_at, now, f"; {end.note}" if end.note else "", end.id)
            for end in changes.resolved
        ],
    )
    ends = {end.id: end.at for end in changes.resolved}
    adopted = _open(connection, changes.opened, ends, now, look_at)
    gone = [key for key, state in changes.states.items() if state is None]
    execute_many(
        connection, "DELETE FROM alert_state WHERE rule = %s AND subject = %s", sorted(gone)
    )
    rows = []
    for (rule, subject), state in sorted(changes.states.items(), key=lambda item: item[0]):
        if state is None:
            continue
        incident = state.incident and adopted.get(state.incident, state.incident)
        rows.append(
            (
                rule,
                subject,
                source,
                places.get((rule, subject), 0),
                incident,
                state.since,
                state.bad_at,
                _encode(msgspec.structs.replace(state, incident=incident)).decode(),
            )
        )
    if rows:
        connection.insert(
            "alert_state",
            ("rule", "subject", "source", "place", "incident", "since", "bad_at", "state"),
            rows,
            "ON CONFLICT (rule, subject) DO UPDATE SET source = excluded.source,"
            " place = excluded.place, incident = excluded.incident, since = excluded.since,"
            " bad_at = excluded.bad_at, state = excluded.state",
        )
    if changes.opened or changes.resolved:
        connection.notify(CHANNEL, "judged")
    return adopted


def _open(
    connection: Connection,
    opened: Sequence[Opened],
    ends: Mapping[str, float],
    now: float,
    look_at: float,
) -> dict[str, str]:
    adopted: dict[str, str] = {}
    for start in range(0, len(opened), _IN_ONE_QUERY):
        some = opened[start : start + _IN_ONE_QUERY]
        marks = ", ".join(["%s"] * len(some))
        rows = connection.query(
            "SELECT rule, subject, id FROM alert_incident WHERE resolved_at IS NULL"  # noqa: S608
            f" AND subject IN ({marks})",
            [each.subject for each in some],
        )
        known = {(rule, subject): id_ for rule, subject, id_ in rows}
        new = []
        for each in some:
            there = known.get((each.rule, each.subject))
            if there is None or each.id in ends:
                new.append(each)
            else:
                adopted[each.id] = there
        if new:
            connection.insert(
                "alert_incident",
                _INCIDENT_COLUMNS,
                [
                    (
                        each.id,
                        each.rule,
                        each.watch,
                        each.subject,
                        each.job_id,
                        each.title,
                        each.reason,
                        each.opened_at,
                        each.caused_at,
                        now,
                        each.late,
                        ends.get(each.id),
                        look_at,
                        now,
                    )
                    for each in new
                ],
            )
    return adopted


def note_seen(connection: Connection, seen: Mapping[int, float]) -> None:
    """Note when the last result of some jobs was made."""
    connection.insert(
        "alert_seen",
        ("job_id", "seen_at"),
        sorted(seen.items()),
        "ON CONFLICT (job_id) DO UPDATE SET seen_at = excluded.seen_at",
    )
