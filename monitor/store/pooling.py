"""Poolers that give one connection to several clients, which would mix up their sessions.

What a session sets, such as the schema, and what it prepares is then another client's. Each session
has a mark, and each transaction begins with a look at it.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import psycopg2
import psycopg2.extensions

__all__ = [
    "LOOK",
    "MARK",
    "SHARED",
    "MarkedConnection",
    "are_apart",
    "forget_others",
    "problem",
]

MARK = "recodex_monitor.session"
"""The setting with the mark: of no program, so that every server takes it."""

LOOK = f"SELECT current_setting('{MARK}', true)"
"""Returns the mark of the session in which it is executed."""

SHARED = (
    "a pooler gives this connection to other clients between transactions; use one in session mode"
    " (PgBouncer: pool_mode = session)"
)
_CLOSED_AT_BEGIN = (
    "it closes a connection on which a transaction begins; use a pooler in session mode"
    " (PgBouncer: pool_mode = session)"
)

# Others use the pooler, too, so that two clients do not get the same connection at each turn.
_LOOKS = 20


class MarkedConnection(psycopg2.extensions.connection):
    """A connection with the mark that its session gets together with its settings."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        try:
            super().__init__(*arguments, **options)
        except BaseException:
            # What keeps the error would keep it open.
            self.close()
            raise
        self.mark = secrets.token_hex(8)
        self.began = time.monotonic()


def forget_others(raw: psycopg2.extensions.connection) -> None:
    """Drop what an earlier client left, if a pooler does not (``server_reset_query``)."""
    with raw.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL; UNLISTEN *; DISCARD TEMP")


def problem(raw: MarkedConnection) -> str | None:
    """Return why a pooler's connection, whose mark is set, cannot be used, as far as it shows."""
    with raw.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        if cursor.fetchone() == (raw.info.backend_pid,):
            return None
        try:
            cursor.execute(f"BEGIN; {LOOK}")
            found = cursor.fetchone()
            cursor.execute("ROLLBACK")
        except psycopg2.OperationalError:
            # PgBouncer gives no reason.
            if raw.closed:
                return _CLOSED_AT_BEGIN
            raise
    return None if found == (raw.mark,) else SHARED


def are_apart(first: MarkedConnection, second: psycopg2.extensions.connection) -> bool:
    """Return whether two idle connections lead to different sessions, as far as it shows.

    The second one loses its mark.
    """
    with first.cursor() as one, second.cursor() as other:
        for _ in range(_LOOKS):
            other.execute(f"SET {MARK} = ''")
            one.execute(LOOK)
            if one.fetchall() != [(first.mark,)]:
                return False
    return True
