"""Log entries and notifications, their validation, and the digest of an upload. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from monitor.logs.levels import LEVELS, level_name
from monitor.logs.times import seconds_of
from monitor.validation import decoding_problem

__all__ = [
    "DECODING_ERRORS",
    "MAX_AHEAD_S",
    "Entry",
    "Reason",
    "Rejected",
    "Rules",
    "UploadDigest",
    "is_sender",
    "validate",
]

MAX_AHEAD_S: Final = 3600.0
"""How far in the future the time of an entry may be."""

_MAX_SENDER_CHARACTERS: Final = 255

# What decoding JSON may raise; RecursionError for thousands of nested arrays.
DECODING_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Reason(StrEnum):
    """Why an entry was rejected. A repeat of the same entry is rejected again."""

    BAD_ENTRY = "bad-entry"
    UNKNOWN_LEVEL = "unknown-level"
    BAD_TEXT = "bad-text"
    ENTRY_TOO_LARGE = "entry-too-large"
    TOO_OLD = "too-old"
    IN_FUTURE = "in-future"
    WRONG_SENDER = "wrong-sender"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A log entry or notification as stored and returned; ``time`` in s since the epoch."""

    level: str
    time: float
    sender: str
    message: str


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A rejected entry of an upload: its index, a stable reason, and a message."""

    index: int
    reason: Reason
    message: str


class _Given(msgspec.Struct, gc=False):
    level: str | int
    time: float | str
    message: str
    sender: str | None = None


_decode = msgspec.json.Decoder(_Given).decode


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules for the entries of an upload.

    ``oldest`` and ``newest`` bound their time (s since the epoch). ``sender`` is the only sender
    that the client may use; None allows any.
    """

    oldest: float
    newest: float
    max_entry_bytes: int
    sender: str | None = None


def validate(
    items: Sequence[bytes | msgspec.Raw], rules: Rules, *, first: int = 0
) -> tuple[list[Entry], list[Rejected]]:
    """Sort entries, each as JSON, into accepted and rejected; ``first`` is their first index."""
    accepted: list[Entry] = []
    rejected: list[Rejected] = []
    for index, item in enumerate(items, first):
        try:
            entry = _accept(item, rules)
        except _RejectedError as rejection:
            rejected.append(Rejected(index, rejection.reason, rejection.message))
        else:
            accepted.append(entry)
    return accepted, rejected


class _RejectedError(Exception):
    """The reason why :func:`_accept` fails; never leaves this module."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        self.message = message


def _accept(item: bytes | msgspec.Raw, rules: Rules) -> Entry:
    try:
        given = _decode(item)
    except DECODING_ERRORS as error:
        raise _RejectedError(Reason.BAD_ENTRY, decoding_problem(error)) from None
    level = level_name(given.level)
    if level is None:
        known = f"{', '.join(LEVELS)}, or 10 to 50 in tens"
        raise _RejectedError(Reason.UNKNOWN_LEVEL, f"level: expected one of {known}")
    message = given.message
    # UTF-8 has at most four bytes per character.
    if len(message) * 4 > rules.max_entry_bytes:
        size = len(message.encode())
        if size > rules.max_entry_bytes:
            problem = f"message has {size} bytes; at most {rules.max_entry_bytes} are allowed"
            raise _RejectedError(Reason.ENTRY_TOO_LARGE, problem)
    sender = _sender(given.sender, rules.sender)
    if "\0" in message or "\0" in sender:
        raise _RejectedError(Reason.BAD_TEXT, "sender and message must not contain NUL")
    try:
        time = seconds_of(given.time)
    except ValueError as error:
        raise _RejectedError(Reason.BAD_ENTRY, f"time {error}") from None
    if time < rules.oldest:
        late = rules.oldest - time
        raise _RejectedError(Reason.TOO_OLD, f"time is {late:.10g} s before the oldest kept")
    if time > rules.newest:
        ahead = time - rules.newest
        raise _RejectedError(
            Reason.IN_FUTURE,
            f"time is {ahead:.10g} s past the {MAX_AHEAD_S:.0f} s allowed in the future",
        )
    return Entry(level, time, sender, message)


def _sender(given: str | None, fixed: str | None) -> str:
    if fixed is not None:
        if given not in (None, fixed):
            raise _RejectedError(Reason.WRONG_SENDER, "the token belongs to another sender")
        return fixed
    if not given:
        raise _RejectedError(Reason.BAD_ENTRY, "sender is missing or empty")
    if len(given) > _MAX_SENDER_CHARACTERS:
        problem = (
            f"sender has {len(given)} characters; at most {_MAX_SENDER_CHARACTERS} are allowed"
        )
        raise _RejectedError(Reason.BAD_ENTRY, problem)
    return given


def is_sender(text: str) -> bool:
    """Return whether this is a valid sender."""
    return 0 < len(text) <= _MAX_SENDER_CHARACTERS and "\0" not in text


class _Sent(msgspec.Struct, gc=False):
    level: Any = None
    message: Any = None
    sender: Any = None


_decode_sent = msgspec.json.Decoder(_Sent).decode
_encode = msgspec.json.Encoder().encode


class UploadDigest:
    """A BLAKE2b digest of the entries of an upload as they were sent, accepted or not.

    A client may encode a repeat differently. So the digest does not depend on the order of keys,
    spaces and escapes, on keys that do not belong to an entry (a message that is an entry itself
    has ``id`` and ``token``), or on ``time``, which some clients set at each try.
    """

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, items: Iterable[bytes | msgspec.Raw]) -> None:
        """Add entries, each as JSON."""
        for item in items:
            try:
                text = _encode(_decode_sent(item))
            except DECODING_ERRORS:
                text = bytes(item)
            self._hash.update(b"%d:" % len(text))
            self._hash.update(text)

    def text(self) -> str:
        """Return the digest of all entries so far, in hexadecimal."""
        return self._hash.hexdigest()
