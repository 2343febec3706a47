"""Acknowledges an incident; runs in a thread of the store."""

from __future__ import annotations

from monitor.alerts.incidents import Incident
from monitor.alerts.reading import find_incident
from monitor.alerts.tables import CHANNEL
from monitor.store import Connection

__all__ = ["acknowledge"]


def acknowledge(
    connection: Connection, incident_id: str, *, by: str, now: float
) -> Incident | None:
    """Note who knows of an incident, and when; return it, or None if there is none of that id.

    The first one counts. A resolved incident stays as it is.
    """
    connection.execute(
        "UPDATE alert_incident SET acknowledged_at = %s, acknowledged_by = %s, changed_at = %s"
        " WHERE id = %s AND acknowledged_at IS NULL AND resolved_at IS NULL",
        (now, by, now, incident_id),
    )
    connection.notify(CHANNEL, "acknowledged")
    return find_incident(connection, incident_id)
