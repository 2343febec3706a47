"""The SQL of the notifier: incidents to look at, and messages to send, in one transaction.

Runs in threads of the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from monitor.alerts.incidents import Event, State, new_id
from monitor.alerts.planning import Looks, Plan, Waiting
from monitor.alerts.suppression import Dependency
from monitor.alerts.tables import CHANNEL, execute_many
from monitor.alerts.transitions import DEPENDENCY
from monitor.store import Connection

__all__ = [
    "Delivery",
    "adopt_targets",
    "carry_out",
    "companions",
    "dependencies",
    "due",
    "flapping",
    "next_deliveries",
    "next_look",
    "note_attempt",
    "open_counts",
    "purge",
    "told",
]

_WAITING = (
    "SELECT i.id, i.rule, i.watch, i.subject, i.job_id, i.opened_at, i.noted_at, i.late,"
    " i.acknowledged_at, i.resolved_at, i.suppressed_by, i.announced_at, i.told_at,"
    " coalesce(s.since, i.opened_at), coalesce(s.bad_at, i.opened_at) FROM alert_incident i"
    " LEFT JOIN alert_state s ON s.rule = i.rule AND s.subject = i.subject AND s.incident = i.id"
)
# More are looked at in the next turn.
_MOST_AT_ONCE = 20_000
_IN_ONE_QUERY = 500
_decode_state = msgspec.json.Decoder(State).decode
# A look that is further away than any that is noted was noted before the clock was set back, or by
# an instance whose clock is ahead.
_DUE = (
    "(i.look_at <= %s OR i.look_at > %s"
    " OR (i.look_at > %s AND (i.announced_at IS NULL OR i.resolved_at IS NOT NULL)))"
)


class Delivery(NamedTuple):
    """A message to one target of a receiver; times in s since the epoch."""

    id: str
    receiver: str
    target: str
    event: Event
    created_at: float
    next_at: float
    attempts: int


def next_look(connection: Connection, now: float, looks: Looks) -> tuple[bool, float | None]:
    """Return whether there are incidents to look at now, and when there are next."""
    ((due, next_at),) = connection.query(
        f"SELECT max(CASE WHEN {_DUE} THEN 1 ELSE 0 END), min(i.look_at)"  # noqa: S608 - our own
        " FROM alert_incident i WHERE i.look_at IS NOT NULL",
        (now, now + looks.repeats, now + looks.waits),
    )
    return bool(due), next_at


def due(connection: Connection, now: float, looks: Looks) -> Iterator[list[Waiting]]:
    """Yield the incidents to look at now, oldest first, in pieces."""
    return _waiting(connection, _DUE, (now, now + looks.repeats, now + looks.waits))


def companions(
    connection: Connection, now: float, looks: Looks, *, opened: bool, ended: bool
) -> Iterator[list[Waiting]]:
    """Yield incidents that wait to be sent and whose time has not come, in pieces.

    These are the ``opened`` or the ``ended`` ones: they go with others of which it has come.
    """
    kinds = [
        *(["(i.resolved_at IS NULL AND i.announced_at IS NULL)"] if opened else []),
        *(["i.resolved_at IS NOT NULL"] if ended else []),
    ]
    return _waiting(
        connection,
        f"NOT {_DUE} AND i.suppressed_by IS NULL AND ({' OR '.join(kinds)})",
        (now, now + looks.repeats, now + looks.waits),
    )


def _waiting(connection: Connection, where: str, values: Sequence[Any]) -> Iterator[list[Waiting]]:
    # "+" keeps the index on look_at in use.
    numbers = connection.query(
        "SELECT i.seq FROM alert_incident i WHERE i.look_at IS NOT NULL"  # noqa: S608 - our own
        f" AND {where} ORDER BY +i.seq LIMIT {_MOST_AT_ONCE}",
        values,
    )
    # Those of an outage are never in memory as a whole.
    for start in range(0, len(numbers), _IN_ONE_QUERY):
        some = [number for (number,) in numbers[start : start + _IN_ONE_QUERY]]
        marks = ", ".join(["%s"] * len(some))
        rows = connection.query(f"{_WAITING} WHERE i.seq IN ({marks}) ORDER BY i.seq", some)
        yield [Waiting(*row) for row in rows]


def dependencies(connection: Connection) -> dict[int, Dependency]:
    """Return the last result of each job that others depend on."""
    found = {}
    for subject, text in connection.query(
        "SELECT subject, state FROM alert_state WHERE rule = %s", (DEPENDENCY,)
    ):
        state = _decode_state(text)
        found[int(subject)] = Dependency(
            state.failures > 0, state.since or 0.0, state.bad_at or 0.0
        )
    return found


def flapping(
    connection: Connection, *, now: float, within: float, most: int
) -> dict[tuple[str, str], int]:
    """Return the subjects with too many incidents that were sent ``within`` some time (s)."""
    rows = connection.query(
        # One that was sent in the future was sent before the clock was set back.
        "SELECT rule, subject, count(*) FROM alert_incident"
        " WHERE announced_at > %s AND announced_at <= %s"
        " GROUP BY rule, subject HAVING count(*) >= %s",
        (now - within, now + within, most),
    )
    return {(rule, subject): count for rule, subject, count in rows}


def told(connection: Connection, incident_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the receivers that each incident's opening was sent to."""
    found: dict[str, list[str]] = {}
    for start in range(0, len(incident_ids), _IN_ONE_QUERY):
        some = incident_ids[start : start + _IN_ONE_QUERY]
        marks = ", ".join(["%s"] * len(some))
        for incident_id, receiver in connection.query(
            "SELECT DISTINCT n.incident_id, d.receiver FROM alert_notice n"  # noqa: S608
            f" JOIN alert_delivery d ON d.id = n.delivery_id WHERE n.incident_id IN ({marks})"
            " AND d.event IN ('opened', 'repeated') ORDER BY d.receiver",
            some,
        ):
            found.setdefault(incident_id, []).append(receiver)
    return found


def carry_out(
    connection: Connection, made: Plan, targets: Mapping[str, Sequence[str]], now: float
) -> int:
    """Note a plan, and put its messages into the outbox; return how many there are.

    ``targets`` has the targets of each receiver; a receiver without any gets nothing.
    """
    execute_many(
        connection,
        "UPDATE alert_incident SET suppressed_by = %s, announced_at = %s, told_at = %s,"
        " look_at = %s, changed_at = %s WHERE id = %s",
        (
            (mark.suppressed_by, mark.announced_at, mark.told_at, mark.look_at, now, mark.id)
            for mark in made.marks
        ),
    )
    deliveries: list[tuple[Any, ...]] = []
    told_of: list[tuple[str, Sequence[str]]] = []
    # Openings first: a receiver gets its messages in this order.
    for (receiver, event), incidents in sorted(made.messages.items()):
        for target in targets.get(receiver, ()):
            delivery_id = new_id()
            deliveries.append((delivery_id, receiver, target, event, len(incidents), now, now))
            told_of.append((delivery_id, incidents))
    if deliveries:
        connection.insert(
            "alert_delivery",
            ("id", "receiver", "target", "event", "incidents", "created_at", "next_at"),
            deliveries,
        )
        connection.insert(
            "alert_notice",
            ("incident_id", "delivery_id"),
            ((id_, delivery_id) for delivery_id, incidents in told_of for id_ in incidents),
        )
    if made.marks:
        connection.notify(CHANNEL, "planned")
    return len(deliveries)


def next_deliveries(
    connection: Connection, receiver: str, target: str, limit: int
) -> list[Delivery]:
    """Return the oldest messages that a target has not accepted."""
    rows = connection.query(
        "SELECT id, receiver, target, event, created_at, next_at, attempts FROM alert_delivery"
        " WHERE receiver = %s AND target = %s AND next_at IS NOT NULL ORDER BY seq LIMIT %s",
        (receiver, target, limit),
    )
    return [Delivery(*row) for row in rows]


def note_attempt(
    connection: Connection,
    delivery_id: str,
    *,
    attempts: int,
    error: str | None,
    accepted_at: float | None,
    next_at: float | None,
    now: float,
) -> None:
    """Note the outcome of an attempt; without ``next_at`` it was the last."""
    connection.execute(
        "UPDATE alert_delivery SET attempts = %s, error = %s, accepted_at = %s, next_at = %s"
        " WHERE id = %s",
        (attempts, error, accepted_at, next_at, delivery_id),
    )
    if next_at is None:
        connection.execute(
            "UPDATE alert_incident SET changed_at = %s"
            " WHERE id IN (SELECT incident_id FROM alert_notice WHERE delivery_id = %s)",
            (now, delivery_id),
        )


def adopt_targets(
    connection: Connection, known: Sequence[tuple[str, str]]
) -> list[tuple[str, int]]:
    """Find a target for messages whose own is no longer configured, or give them up.

    A new target of the same receiver takes them: its URL was changed, perhaps for a new password.
    Returns the receivers and counts of those that are given up.
    """
    rows = connection.query(
        "SELECT receiver, target, count(*) FROM alert_delivery WHERE next_at IS NOT NULL"
        " GROUP BY receiver, target ORDER BY count(*) DESC"
    )
    orphaned = [row for row in rows if (row[0], row[1]) not in set(known)]
    if not orphaned:
        return []
    used = set(connection.query("SELECT DISTINCT receiver, target FROM alert_delivery"))
    new = [target for target in known if target not in used]
    lost = []
    for receiver, target, count in orphaned:
        heir = next((each for each in new if each[0] == receiver), None)
        if heir is None:
            lost.append((receiver, count))
            changed: tuple[str, Sequence[Any]] = (
                "next_at = NULL, error = %s",
                ("the receiver was removed from the config",),
            )
        else:
            new.remove(heir)
            changed = ("target = %s", (heir[1],))
        connection.execute(
            f"UPDATE alert_delivery SET {changed[0]}"  # noqa: S608 - our own text
            " WHERE receiver = %s AND target = %s AND next_at IS NOT NULL",
            (*changed[1], receiver, target),
        )
    return lost


def open_counts(connection: Connection) -> dict[str, int]:
    """Return how many incidents are open, by rule."""
    rows = connection.query(
        "SELECT rule, count(*) FROM alert_incident WHERE resolved_at IS NULL GROUP BY rule"
    )
    return dict(rows)


def purge(connection: Connection, before: float, limit: int) -> int:
    """Delete some incidents that were resolved before a time, and messages about them alone."""
    rows = connection.query(
        "SELECT id FROM alert_incident WHERE resolved_at < %s LIMIT %s", (before, limit)
    )
    ids = [(id_,) for (id_,) in rows]
    execute_many(connection, "DELETE FROM alert_notice WHERE incident_id = %s", ids)
    execute_many(connection, "DELETE FROM alert_incident WHERE id = %s", ids)
    if len(ids) < limit:
        connection.execute(
            "DELETE FROM alert_delivery WHERE created_at < %s AND next_at IS NULL"
            " AND id NOT IN (SELECT delivery_id FROM alert_notice)",
            (before,),
        )
        connection.execute("DELETE FROM alert_silence WHERE until < %s", (before,))
    return len(ids)
