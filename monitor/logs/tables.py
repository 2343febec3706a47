"""The SQL of log entries and notifications, for both databases; runs in the store's threads."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from monitor.logs.entries import Entry
from monitor.logs.filters import Kind
from monitor.store import Connection
from monitor.store.partitions import create_partitions
from monitor.yielding import in_slices

__all__ = [
    "BLOCK_BITS",
    "CHANNEL",
    "AcceptedUpload",
    "Committed",
    "Repeat",
    "UploadKey",
    "commit",
    "entries_of_block",
    "entries_since_block",
    "last_block",
    "partition_width_s",
]

BLOCK_BITS: Final = 16
"""A commit's ids are block << BLOCK_BITS and up: so many entries it holds at most."""

CHANNEL: Final = "log_entry"
"""Where a commit of log entries is told, as ``INSTANCE BLOCK``."""

_LOG_COLUMNS: Final = ("id", "level", "time", "sender", "message", "received_at")


class UploadKey(NamedTuple):
    """What a repeated upload is known by."""

    sender: str
    upload_id: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class AcceptedUpload:
    """The entries of one upload to store.

    With a key, ``answer`` is kept for a repeat of the upload, which has the same ``digest``.
    """

    kind: Kind
    entries: Sequence[Entry]
    key: UploadKey | None = None
    answer: str = ""
    digest: str = ""


class Repeat(NamedTuple):
    """What the first upload of a key was answered, and whether it was the ``same`` as this one."""

    answer: str
    same: bool


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did: the uploads whose keys were taken before, and the block of its entries."""

    repeated: Mapping[UploadKey, Repeat]
    block: int | None


def partition_width_s(timewindow: float) -> int:
    """Return how many seconds a partition spans: at least 60, else a 24th of the window."""
    return max(60, -(-int(timewindow) // 24))


def commit(
    connection: Connection,
    uploads: Sequence[AcceptedUpload],
    *,
    received_at: float,
    width_s: int,
    instance: str,
) -> Committed:
    """Store what is new of ``uploads``; no two of them may have the same key."""
    keyed = {upload.key: upload for upload in uploads if upload.key is not None}
    repeated = _claim(connection, keyed, received_at) if keyed else {}
    fresh = [upload for upload in uploads if upload.key is None or upload.key not in repeated]
    logs = [entry for upload in fresh if upload.kind is Kind.LOGS for entry in upload.entries]
    others = [entry for upload in fresh if upload.kind is not Kind.LOGS for entry in upload.entries]
    block = None
    if logs and connection.dialect == "postgresql":
        block = _copy(connection, logs, received_at, width_s)
        connection.notify(CHANNEL, f"{instance} {block}")
    elif logs:
        ((last,),) = connection.query("SELECT coalesce(max(id), 0) FROM log_entry")
        rows = (
            (number, entry.level, entry.time, entry.sender, entry.message, received_at)
            for number, entry in enumerate(logs, last + 1)
        )
        connection.insert("log_entry", _LOG_COLUMNS, rows)
    if others:
        rows_ = (
            (entry.level, entry.time, entry.sender, entry.message, received_at) for entry in others
        )
        connection.insert("notification", _LOG_COLUMNS[1:], rows_)
    return Committed(repeated, block)


def _claim(
    connection: Connection, keyed: Mapping[UploadKey, AcceptedUpload], received_at: float
) -> dict[UploadKey, Repeat]:
    """Take the keys that are free; return what was uploaded under those that are not."""
    # In one order everywhere, so that two instances can't wait for each other in a circle.
    keys = sorted(keyed)
    if connection.dialect == "postgresql":
        columns = [list(column) for column in zip(*keys, strict=True)]
        rows = connection.query(
            "INSERT INTO log_upload (sender, upload_id, kind, answer, digest, received_at)"
            " SELECT *, %s::double precision"
            " FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[])"
            " ON CONFLICT DO NOTHING RETURNING sender, upload_id, kind",
            (
                received_at,
                *columns,
                [keyed[key].answer for key in keys],
                [keyed[key].digest for key in keys],
            ),
        )
        new = {UploadKey(sender, upload_id, Kind(kind)) for sender, upload_id, kind in rows}
    else:
        new = {
            key
            for key in keys
            if connection.execute(
                "INSERT INTO log_upload (sender, upload_id, kind, answer, digest, received_at)"
                " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (*key, keyed[key].answer, keyed[key].digest, received_at),
            )
        }
    repeated = {}
    for key in keys:
        if key not in new:
            ((answer, digest),) = connection.query(
                "SELECT answer, digest FROM log_upload"
                " WHERE sender = %s AND upload_id = %s AND kind = %s",
                tuple(key),
            )
            # Of what was answered by an earlier version nothing more is known.
            repeated[key] = Repeat(answer, digest is None or digest == keyed[key].digest)
    return repeated


def _copy(
    connection: Connection, entries: Sequence[Entry], received_at: float, width_s: int
) -> int:
    assert len(entries) <= 1 << BLOCK_BITS
    for slot in sorted({entry.time // width_s for entry in entries}):
        at = slot * width_s
        create_partitions(connection, "log_entry", since=at, until=at, width_s=width_s)
    ((block,),) = connection.query("SELECT nextval('log_entry_block')")
    first = block << BLOCK_BITS
    # Text format: a backslash hides what would end a field or a row. It is data, never SQL.
    lines = [
        f"{number}\t{entry.level}\t{entry.time!r}\t{_escape(entry.sender)}"
        f"\t{_escape(entry.message)}\t{received_at!r}\n"
        for number, entry in enumerate(in_slices(entries), first)
    ]
    with connection.raw.cursor() as cursor:
        cursor.copy_expert(
            f"COPY log_entry ({', '.join(_LOG_COLUMNS)}) FROM STDIN",
            io.BytesIO("".join(lines).encode()),
            65536,
        )
    return int(block)


def _escape(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    # Most have none of the rest, which one test tells.
    if not text.isprintable():
        text = text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return text


def _entries(rows: Iterable[Sequence[Any]]) -> list[Entry]:
    return [Entry(row[0], row[1], row[2], row[3]) for row in rows]


def entries_of_block(connection: Connection, block: int) -> list[Entry]:
    """Return the entries of one commit, in PostgreSQL."""
    return _entries(
        connection.query(
            "SELECT level, time, sender, message FROM log_entry"
            " WHERE id >= %s AND id < %s ORDER BY id",
            (block << BLOCK_BITS, (block + 1) << BLOCK_BITS),
        )
    )


def entries_since_block(
    connection: Connection, block: int, *, seen: Iterable[int], limit: int
) -> dict[int, list[Entry]]:
    """Return the entries of commits from ``block`` on that are not ``seen``, by block."""
    rows = connection.query(
        "SELECT level, time, sender, message, id FROM log_entry"
        " WHERE id >= %s AND NOT (id >> %s = ANY(%s::bigint[])) ORDER BY id LIMIT %s",
        (block << BLOCK_BITS, BLOCK_BITS, list(seen), limit),
    )
    found: dict[int, list[Entry]] = {}
    for row in rows:
        found.setdefault(row[4] >> BLOCK_BITS, []).extend(_entries((row,)))
    return found


def last_block(connection: Connection) -> int:
    """Return the last block that any instance has taken, committed or not."""
    # Before its first call a sequence shows the value that it will give then.
    ((block,),) = connection.query(
        "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM log_entry_block"
    )
    return int(block)
