"""Parses the requests of the log actions. Pure.

A message is one JSON object. :func:`parse` returns one of the requests below or raises ActionError,
whose ``answer`` is the response to the client. An invalid message never ends the connection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from monitor.logs.answers import ActionError, ErrorCode, Head
from monitor.logs.entries import DECODING_ERRORS, is_sender
from monitor.logs.filters import Cursor, Filter, Kind, Query
from monitor.logs.heads import MAX_TEXT, NOTHING, MessageHead, bad, decode, head
from monitor.logs.levels import LEVELS, level_name
from monitor.logs.times import seconds_of
from monitor.store.cursor import read_cursor

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_EXCLUDES",
    "MAX_LIMIT",
    "Follow",
    "ListRequest",
    "Request",
    "Unfollow",
    "Upload",
    "filter_of",
    "parse",
    "parse_upload",
    "query",
]

DEFAULT_LIMIT: Final = 1000
MAX_LIMIT: Final = 10_000
MAX_EXCLUDES: Final = 10


@dataclass(frozen=True, slots=True)
class Upload:
    """A request to store entries, each still as JSON; ``single`` if the message is the entry.

    ``sender`` is the sender whose ``upload_id`` it is, as far as the message says.
    """

    head: Head
    kind: Kind
    items: Sequence[bytes | Raw]
    single: bool
    upload_id: str | None
    sender: str


@dataclass(frozen=True, slots=True)
class ListRequest:
    """A request for a page of entries."""

    head: Head
    query: Query


@dataclass(frozen=True, slots=True)
class Follow:
    """A request for new matching entries as they arrive."""

    head: Head
    filter: Filter


@dataclass(frozen=True, slots=True)
class Unfollow:
    """A request to end the live tail."""

    head: Head


Request = Upload | ListRequest | Follow | Unfollow


class _Plain(MessageHead, forbid_unknown_fields=True):
    pass


class _Upload(msgspec.Struct):
    # Other keys are ignored, as in an entry: clients may add their own.
    upload_id: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    logs: list[Raw] | UnsetType = UNSET
    notifications: list[Raw] | UnsetType = UNSET
    level: Raw = NOTHING
    time: Raw = NOTHING
    message: Raw = NOTHING


class _Sender(msgspec.Struct):
    sender: str = ""


_Text = Annotated[str, Meta(max_length=MAX_TEXT)]


class _Filter(_Plain, forbid_unknown_fields=True):
    # Unknown keys are errors, because a misspelled filter would return everything.
    sender: _Text | None = None
    level: str | int | None = None
    min_level: str | int | None = None
    contains: _Text | None = None
    excludes: _Text | Annotated[list[_Text], Meta(max_length=MAX_EXCLUDES)] | None = msgspec.field(
        default=None, name="not"
    )
    regexp: _Text | None = None


class _List(_Filter, forbid_unknown_fields=True):
    timewindow: float | None = None
    since: float | str | None = msgspec.field(default=None, name="from")
    until: float | str | None = None
    around: float | str | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] | None = None
    cursor: str | None = None


_decode_sender = msgspec.json.Decoder(_Sender).decode


def parse(data: bytes, *, max_batch: int, found: Head | None = None) -> Request:
    """Parse one message, whose head may be known; raises ActionError if it is invalid."""
    found = found or head(data)
    match found.action:
        case None:
            raise bad("action: missing")
        case "uploadLogs":
            return _upload(data, found, Kind.LOGS, max_batch)
        case "uploadNotifications":
            return _upload(data, found, Kind.NOTIFICATIONS, max_batch)
        case "getLogs":
            return _list(data, found, Kind.LOGS)
        case "getNotifications":
            return _list(data, found, Kind.NOTIFICATIONS)
        case "followLogs":
            return Follow(found, _filter(decode(data, _Filter)))
        case "unfollowLogs":
            decode(data, _Plain)
            return Unfollow(found)
        case action:
            raise ActionError(ErrorCode.UNKNOWN_ACTION, f"unknown action {action[:64]!r}")


def parse_upload(data: bytes, kind: Kind, *, max_batch: int, found: Head | None = None) -> Upload:
    """Parse an upload whose kind is known, and which needs no ``action``; raises ActionError."""
    found = found or head(data)
    expected = "uploadLogs" if kind is Kind.LOGS else "uploadNotifications"
    if found.action not in (None, expected):
        raise bad(f"action: expected {expected} or nothing here")
    return _upload(data, Head(expected, found.id, found.token), kind, max_batch)


def _upload(data: bytes, found: Head, kind: Kind, max_batch: int) -> Upload:
    given = decode(data, _Upload)
    if given.upload_id is not None and "\0" in given.upload_id:
        raise bad("upload_id: must not contain NUL")
    batch = given.logs if kind is Kind.LOGS else given.notifications
    other = given.notifications if kind is Kind.LOGS else given.logs
    if other is not UNSET:
        raise bad(f"{found.action} expects its entries in {kind}")
    if batch is UNSET:
        sender = "" if given.upload_id is None else _sender_of((data,))
        return Upload(found, kind, (data,), True, given.upload_id, sender)
    if any(map(bytes, (given.level, given.time, given.message))):
        raise bad(f"expected one entry in the message itself or a list in {kind}, not both")
    if len(batch) > max_batch:
        problem = f"{len(batch)} entries in {kind}; at most {max_batch} are allowed"
        raise ActionError(ErrorCode.TOO_LARGE, problem)
    sender = "" if given.upload_id is None else _sender_of(batch)
    return Upload(found, kind, batch, False, given.upload_id, sender)


def _sender_of(items: Sequence[bytes | Raw]) -> str:
    """Return the first valid sender; independent of the clock, so that a repeat has the same."""
    for item in items:
        try:
            sender = _decode_sender(item).sender
        except DECODING_ERRORS:
            continue
        if is_sender(sender):
            return sender
    return ""


def _list(data: bytes, found: Head, kind: Kind) -> ListRequest:
    given = decode(data, _List)
    chosen = query(
        kind,
        _filter(given),
        timewindow=given.timewindow,
        since=given.since,
        until=given.until,
        around=given.around,
        limit=given.limit,
        cursor=given.cursor,
    )
    return ListRequest(found, chosen)


def query(
    kind: Kind,
    filter_: Filter,
    *,
    timewindow: float | None = None,
    since: float | str | None = None,
    until: float | str | None = None,
    around: float | str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Query:
    """Make a query from the values of a client; raises ActionError for invalid values."""
    if timewindow is not None and not (math.isfinite(timewindow) and timewindow > 0):
        raise bad("timewindow: expected a number of seconds above 0")
    limit = DEFAULT_LIMIT if limit is None else limit
    if not 1 <= limit <= MAX_LIMIT:
        raise bad(f"limit: expected 1 to {MAX_LIMIT}")
    try:
        position = None if cursor is None else read_cursor(cursor, Cursor)
    except ValueError as error:
        raise bad(str(error)) from None
    begin, end, middle = _time("from", since), _time("until", until), _time("around", around)
    if middle is not None and (end is not None or position is not None):
        raise bad("around: conflicts with until and cursor")
    return Query(kind, filter_, limit, timewindow, position, begin, end, middle)


def _time(key: str, given: float | str | None) -> float | None:
    try:
        return None if given is None else seconds_of(given)
    except ValueError as error:
        raise bad(f"{key} {error}") from None


def _filter(given: _Filter) -> Filter:
    texts = given.excludes
    excludes = (texts,) if isinstance(texts, str) else tuple(texts or ())
    return filter_of(
        given.sender, given.level, given.min_level, given.contains, excludes, regexp=given.regexp
    )


def filter_of(
    sender: str | None = None,
    level: str | int | None = None,
    min_level: str | int | None = None,
    contains: str | None = None,
    excludes: Sequence[str] = (),
    *,
    regexp: str | None = None,
) -> Filter:
    """Make a filter from the values of a client; raises ActionError for invalid values."""
    names = []
    for key, value in (("level", level), ("min_level", min_level)):
        name = None if value is None else level_name(value)
        if value is not None and name is None:
            raise bad(f"{key}: expected one of {', '.join(LEVELS)}, or 10 to 50 in tens")
        names.append(name)
    if len(excludes) > MAX_EXCLUDES:
        raise bad(f"not: at most {MAX_EXCLUDES} texts")
    texts = (
        ("sender", sender),
        ("contains", contains),
        *(("not", each) for each in excludes),
        ("regexp", regexp),
    )
    for key, text in texts:
        if text is not None and "\0" in text:
            raise bad(f"{key}: must not contain NUL")
    if regexp is not None and len(regexp) > MAX_TEXT:
        raise bad(f"regexp: longer than {MAX_TEXT} characters")
    # An empty text is in every message.
    without = tuple(filter(None, excludes))
    return Filter(sender, names[0], names[1], contains or None, without, regexp or None)
