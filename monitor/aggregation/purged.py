"""Up to where metrics were purged, so that a late result does not make a purged window again.

A consumer that writes and the purge that moves the limit exclude each other: after a purge, no
consumer counts by the limit of before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from monitor.store import Connection

__all__ = ["move_purged_before", "purged_before"]

_LOCK = "hashtext('recodex-monitor metrics ' || current_schema())"


def purged_before(connection: Connection) -> Mapping[str, float]:
    """Return by granularity the instant (s since the epoch) before which windows were purged."""
    if connection.dialect == "postgresql":
        connection.query(f"SELECT pg_advisory_xact_lock_shared({_LOCK})")
    found: defaultdict[str, float] = defaultdict(lambda: -math.inf)
    found.update(connection.query("SELECT granularity, purged_before FROM metric_purge"))
    return found


def move_purged_before(connection: Connection, granularity: str, instant: float) -> None:
    """Move the limit of a granularity ahead to ``instant``; before the windows are deleted."""
    if connection.dialect == "postgresql":
        connection.query(f"SELECT pg_advisory_xact_lock({_LOCK})")
    connection.execute(
        "INSERT INTO metric_purge AS p (granularity, purged_before) VALUES (%s, %s)"
        " ON CONFLICT (granularity) DO UPDATE SET purged_before = excluded.purged_before"
        " WHERE p.purged_before < excluded.purged_before",
        (granularity, instant),
    )
