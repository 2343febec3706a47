"""The SQL of log entries and notifications, for both databases; runs in threads of the store."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from monitor.logs.entries import Entry
from monitor.logs.filters import Kind
from monitor.store import Connection, expect_rows
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
"""The ids of a commit start at block << BLOCK_BITS, which limits its number of entries."""

CHANNEL: Final = "log_entry"
"""The channel that announces commits of log entries, as ``INSTANCE BLOCK``."""

_LOG_COLUMNS: Final = ("id", "level", "time", "sender", "message", "received_at")


class UploadKey(NamedTuple):
    """The key that identifies a repeated upload."""

    sender: str
    upload_id: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class AcceptedUpload:
    """The entries of one upload to store.

    With a key, ``answer`` is stored for a repeat of the upload, which has the same ``digest``.
    """

    kind: Kind
    entries: Sequence[Entry]
    key: UploadKey | None = None
    answer: str = ""
    digest: str = ""


class Repeat(NamedTuple):
    """The answer to the first upload with a key, and whether it was the ``same`` as this one."""

    answer: str
    same: bool


@dataclass(frozen=True, slots=True)
class Committed:
    """The result of a commit: uploads whose keys existed, and the block of the new entries."""

    repeated: Mapping[UploadKey, Repeat]
    block: int | None


def partition_width_s(timewindow: float) -> int:
    """Return the width of a partition in s: a 24th of the window, but at least 60."""
    return max(60, -(-int(timewindow) // 24))


def commit(
    connection: Connection,
    uploads: Sequence[AcceptedUpload],
    *,
    received_at: float,
    width_s: int,
    instance: str,
) -> Committed:
    """Store the new ones of ``uploads``, whose keys must differ."""
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
    """Insert new keys; return the first uploads of existing ones."""
    # In the same order everywhere, so that two instances cannot deadlock.
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
            # An earlier version stored no digest.
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
    # In text format a backslash escapes the end of a field or row. It is data, never SQL.
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
        expect_rows("log_entry", len(entries) - cursor.rowcount)
    return int(block)


def _escape(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    # Most texts have none of the others, which one test shows.
    if not text.isprintable():
        text = text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return text


def entries_of_block(connection: Connection, block: int) -> list[Entry]:
    """Return the entries of one commit, in PostgreSQL."""
    rows = connection.query(
        "SELECT level, time, sender, message FROM log_entry WHERE id >= %s AND id < %s ORDER BY id",
        (block << BLOCK_BITS, (block + 1) << BLOCK_BITS),
    )
    return [Entry(*row) for row in rows]


def entries_since_block(
    connection: Connection, block: int, *, seen: Iterable[int], limit: int
) -> dict[int, list[Entry]]:
    """Return the entries of commits from ``block`` on that are not in ``seen``, by block."""
    rows = connection.query(
        "SELECT level, time, sender, message, id FROM log_entry"
        " WHERE id >= %s AND NOT (id >> %s = ANY(%s::bigint[])) ORDER BY id LIMIT %s",
        (block << BLOCK_BITS, BLOCK_BITS, list(seen), limit),
    )
    found: dict[int, list[Entry]] = {}
    for *values, number in rows:
        found.setdefault(number >> BLOCK_BITS, []).append(Entry(*values))
    return found


def last_block(connection: Connection) -> int:
    """Return the last block that an instance has allocated, committed or not."""
    # Before its first call, last_value of a sequence is the value that it will return.
    ((block,),) = connection.query(
        "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM log_entry_block"
    )
    return int(block)
