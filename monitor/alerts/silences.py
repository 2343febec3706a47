"""Silences: maintenance for once; runs in threads of the store."""

from __future__ import annotations

import msgspec

from monitor.alerts.incidents import new_id
from monitor.alerts.settings import Match
from monitor.alerts.tables import CHANNEL, hold_incidents
from monitor.store import Connection

__all__ = [
    "Silence",
    "add_silence",
    "delete_silence",
    "list_silences",
    "look_again",
    "silences_between",
]

_FOR_EVER = float("inf")
_encode = msgspec.json.Encoder().encode
_decode_match = msgspec.json.Decoder(Match).decode


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """What is not sent from a time on until another one; times in s since the epoch."""

    id: str
    created_at: float
    created_by: str
    starts_at: float
    until: float
    match: Match
    comment: str = ""


def list_silences(connection: Connection, now: float) -> list[Silence]:
    """Return the silences that have not ended, the newest first."""
    return silences_between(connection, now, _FOR_EVER)


def silences_between(connection: Connection, since: float, until: float) -> list[Silence]:
    """Return the silences of a range of time (s since the epoch), the newest first."""
    rows = connection.query(
        "SELECT id, created_at, created_by, coalesce(starts_at, created_at), until, match, comment"
        " FROM alert_silence WHERE until > %s AND coalesce(starts_at, created_at) < %s"
        " ORDER BY created_at DESC, id",
        (since, until),
    )
    return [
        Silence(
            id=id_,
            created_at=created_at,
            created_by=created_by,
            starts_at=starts_at,
            until=until,
            match=_decode_match(match),
            comment=comment,
        )
        for id_, created_at, created_by, starts_at, until, match, comment in rows
    ]


def add_silence(
    connection: Connection,
    *,
    match: Match,
    until: float,
    comment: str,
    by: str,
    now: float,
    starts_at: float | None = None,
) -> Silence:
    """Store a new silence and return it; it begins now, or at ``starts_at``."""
    silence = Silence(
        id=new_id(),
        created_at=now,
        created_by=by,
        starts_at=now if starts_at is None else starts_at,
        until=until,
        match=match,
        comment=comment,
    )
    connection.insert(
        "alert_silence",
        ("id", "created_at", "created_by", "starts_at", "until", "match", "comment"),
        [(silence.id, now, by, starts_at, until, _encode(match).decode(), comment)],
    )
    look_again(connection, now)
    return silence


def delete_silence(connection: Connection, silence_id: str, now: float) -> bool:
    """End a silence now; return False if there is none of that id."""
    found = connection.execute("DELETE FROM alert_silence WHERE id = %s", (silence_id,)) > 0
    if found:
        look_again(connection, now)
    return found


def look_again(connection: Connection, now: float) -> None:
    """Make the notifier look at all open incidents that are not waiting for their first message."""
    hold_incidents(connection, alone=False)
    connection.execute(
        "UPDATE alert_incident SET look_at = %s WHERE resolved_at IS NULL"
        " AND (announced_at IS NOT NULL OR suppressed_by IS NOT NULL)",
        (now,),
    )
    connection.notify(CHANNEL, "silences")
