"""Heartbeats and their keys as rows of the table heartbeat; run in the store's threads."""

from __future__ import annotations

import hashlib
import secrets

from monitor.probes.beats import Beat
from monitor.store import Connection

__all__ = ["key_hash", "load_beats", "load_keys", "new_key", "take_beat"]

_KEY_BYTES = 24


def new_key(connection: Connection, job_id: int) -> str:
    """Return a new key for a job's heartbeats; an earlier one stops working."""
    key = secrets.token_urlsafe(_KEY_BYTES)
    connection.execute(
        "INSERT INTO heartbeat (job_id, key_hash) VALUES (%s, %s)"
        " ON CONFLICT (job_id) DO UPDATE SET key_hash = excluded.key_hash",
        (job_id, key_hash(key)),
    )
    return key


def take_beat(connection: Connection, key: str, beat: Beat) -> int | None:
    """Store a beat; return its job's id, or None for an unknown key."""
    rows = connection.query("SELECT job_id FROM heartbeat WHERE key_hash = %s", (key_hash(key),))
    if not rows:
        return None
    connection.execute(
        "UPDATE heartbeat SET beat_at = %s, beat_up = %s, message = %s WHERE job_id = %s",
        (beat.at, beat.up, beat.message, rows[0][0]),
    )
    return int(rows[0][0])


def load_beats(connection: Connection) -> dict[int, Beat]:
    """Return the last beat of each job that has one."""
    rows = connection.query(
        "SELECT job_id, beat_at, beat_up, message FROM heartbeat WHERE beat_at IS NOT NULL"
    )
    return {int(job_id): Beat(at, bool(up), message or "") for job_id, at, up, message in rows}


def load_keys(connection: Connection) -> dict[str, int]:
    """Return the jobs' ids by the hashes of their keys."""
    rows = connection.query("SELECT key_hash, job_id FROM heartbeat")
    return {hash_: int(job_id) for hash_, job_id in rows}


def key_hash(key: str) -> str:
    """Return what is stored of a key."""
    # A random key needs no salt.
    return hashlib.sha256(key.encode()).hexdigest()
