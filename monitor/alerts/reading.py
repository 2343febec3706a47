"""Reads incidents for the API and for messages; runs in threads of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from monitor.alerts.incidents import Incident, Notice
from monitor.store import Connection

__all__ = [
    "IncidentState",
    "changed_incidents",
    "count_open",
    "find_incident",
    "incidents_of_delivery",
    "list_incidents",
    "open_incidents",
    "open_of_receiver",
]

IncidentState = Literal["open", "acknowledged", "suppressed", "resolved"]
"""``open``: not resolved; the acknowledged and the suppressed ones are some of these."""

_COLUMNS = (
    "id, rule, watch, subject, job_id, title, opened_at, acknowledged_at, acknowledged_by,"
    " resolved_at, reason, suppressed_by, seq"
)
_STATES: Mapping[str, str] = {
    "open": "resolved_at IS NULL",
    "acknowledged": "resolved_at IS NULL AND acknowledged_at IS NOT NULL",
    "suppressed": "resolved_at IS NULL AND suppressed_by IS NOT NULL",
    "resolved": "resolved_at IS NOT NULL",
}
_IN_ONE_QUERY = 500


def list_incidents(
    connection: Connection,
    *,
    state: IncidentState | None = None,
    rule: str | None = None,
    job: int | None = None,
    since: float = 0.0,
    until: float | None = None,
    before: int = 2**63 - 1,
    limit: int = 100,
    notices: bool = True,
) -> list[tuple[int, Incident]]:
    """Return incidents with their numbers, newest first, from below the number ``before``.

    ``since`` leaves out those that ended before it (s since the epoch), ``until`` those that were
    opened at or after it. Without ``notices`` they lack what was sent.
    """
    where = ["seq < %s", "(resolved_at IS NULL OR resolved_at >= %s)"]
    values: list[Any] = [before, since]
    if state is not None:
        where.append(_STATES[state])
    if rule is not None:
        where.append("rule = %s")
        values.append(rule)
    if job is not None:
        where.append("job_id = %s")
        values.append(job)
    if until is not None:
        where.append("opened_at < %s")
        values.append(until)
    return _select(
        connection,
        " AND ".join(where),
        values,
        f"ORDER BY seq DESC LIMIT {limit:d}",
        notices=notices,
    )


def find_incident(connection: Connection, incident_id: str) -> Incident | None:
    """Return the incident of that id."""
    found = _select(connection, "id = %s", [incident_id], "")
    return found[0][1] if found else None


def open_incidents(connection: Connection, limit: int) -> list[Incident]:
    """Return the newest incidents that are not resolved, without what was sent."""
    found = _select(
        connection, "resolved_at IS NULL", [], f"ORDER BY seq DESC LIMIT {limit:d}", notices=False
    )
    return [incident for _, incident in found]


def count_open(connection: Connection) -> int:
    """Return how many incidents are not resolved."""
    ((count,),) = connection.query("SELECT count(*) FROM alert_incident WHERE resolved_at IS NULL")
    return int(count)


def changed_incidents(connection: Connection, since: float, limit: int) -> list[Incident]:
    """Return incidents that changed at or after ``since``, without what was sent."""
    return [
        incident
        for _, incident in _select(
            connection,
            "changed_at >= %s",
            [since],
            f"ORDER BY changed_at DESC LIMIT {limit:d}",
            notices=False,
        )
    ]


def incidents_of_delivery(connection: Connection, delivery_id: str) -> list[Incident]:
    """Return the incidents of a message, in the order in which they were opened."""
    numbers = connection.query(
        "SELECT i.seq FROM alert_notice n JOIN alert_incident i ON i.id = n.incident_id"
        " WHERE n.delivery_id = %s ORDER BY i.seq",
        (delivery_id,),
    )
    incidents: list[Incident] = []
    texts: dict[str, str] = {}
    # An outage may have thousands: their rows are not held next to the incidents.
    for start in range(0, len(numbers), _IN_ONE_QUERY):
        some = [number for (number,) in numbers[start : start + _IN_ONE_QUERY]]
        marks = ", ".join(["%s"] * len(some))
        found = _select(connection, f"seq IN ({marks})", some, "ORDER BY seq", texts=texts)
        incidents += [incident for _, incident in found]
    return incidents


def open_of_receiver(connection: Connection, receiver: str) -> list[Incident]:
    """Return the open incidents that a receiver got, without what was sent."""
    found = _select(
        connection,
        "resolved_at IS NULL AND id IN (SELECT n.incident_id FROM alert_notice n"
        " JOIN alert_delivery d ON d.id = n.delivery_id WHERE d.receiver = %s"
        " AND d.event = 'opened' AND d.accepted_at IS NOT NULL)",
        [receiver],
        "ORDER BY seq",
        notices=False,
    )
    return [incident for _, incident in found]


def _select(
    connection: Connection,
    where: str,
    values: Sequence[Any],
    tail: str,
    *,
    notices: bool = True,
    texts: dict[str, str] | None = None,
) -> list[tuple[int, Incident]]:
    rows = connection.query(
        f"SELECT {_COLUMNS} FROM alert_incident WHERE {where} {tail}",  # noqa: S608 - our own
        values,
    )
    sent = _notices(connection, [row[0] for row in rows]) if notices else {}
    # Most incidents of an outage have the same rule, reason and notices.
    known = {} if texts is None else texts
    lists: dict[tuple[int, ...], Sequence[Notice]] = {}

    def shared(text: str) -> str:
        return known.setdefault(text, text)

    def notified(incident_id: str) -> Sequence[Notice]:
        found = sent.get(incident_id, ())
        return lists.setdefault(tuple(map(id, found)), found)

    return [
        (
            row[12],
            Incident(
                id=row[0],
                rule=shared(row[1]),
                watch=shared(row[2]),
                subject=row[3],
                job=row[4],
                title=row[5],
                opened_at=row[6],
                acknowledged_at=row[7],
                acknowledged_by=row[8],
                resolved_at=row[9],
                reason=shared(row[10]),
                suppressed_by=row[11],
                notified=notified(row[0]),
            ),
        )
        for row in rows
    ]


def _notices(connection: Connection, ids: Sequence[str]) -> dict[str, list[Notice]]:
    found: dict[str, list[Notice]] = {}
    # One notice is one message to one receiver: the incidents of a message share it.
    shared: dict[str, Notice] = {}
    for start in range(0, len(ids), _IN_ONE_QUERY):
        some = ids[start : start + _IN_ONE_QUERY]
        marks = ", ".join(["%s"] * len(some))
        for incident_id, delivery_id, *values in connection.query(
            "SELECT n.incident_id, d.id, d.receiver, d.event, d.accepted_at, d.attempts, d.error"  # noqa: S608
            " FROM alert_notice n JOIN alert_delivery d ON d.id = n.delivery_id"
            f" WHERE n.incident_id IN ({marks}) ORDER BY d.seq",
            some,
        ):
            notice = shared.get(delivery_id)
            if notice is None:
                receiver, event, at, attempts, error = values
                notice = shared[delivery_id] = Notice(
                    receiver=receiver, event=event, at=at, attempts=attempts, error=error
                )
            found.setdefault(incident_id, []).append(notice)
    return found
