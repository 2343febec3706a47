"""What all messages of the log actions have in common: action, id and token. Pure."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from monitor.logs.answers import ActionError, ErrorCode, Head
from monitor.logs.entries import DECODING_ERRORS
from monitor.validation import decoding_problem

__all__ = [
    "MAX_TEXT",
    "NOTHING",
    "MessageHead",
    "bad",
    "breathe",
    "decode",
    "echo",
    "head",
    "head_of",
    "tokens_in",
]

T = TypeVar("T", bound=msgspec.Struct)

MAX_TEXT: Final = 4096
NOTHING: Final = Raw()
_MAX_ID_BYTES: Final = 256
# A long message with more than one object in this many bytes cannot be an upload: decoding it takes
# very long for what it can say.
_LONG_BYTES: Final = 256 * 1024
_BYTES_AN_OBJECT: Final = 32
# With more commas than one in so many bytes, it may be a list of numbers, which takes as long.
_BYTES_A_COMMA: Final = 16
# Escapes take so much longer to read than other letters that no message may have more; one of four
# digits counts three times.
_MAX_ESCAPES: Final = 1_000_000
_MAX_TOKENS: Final = 8


class MessageHead(msgspec.Struct):
    """The keys that every message may have, not decoded yet."""

    action: Raw = NOTHING
    id: Raw = NOTHING
    token: Raw = NOTHING


_TOKEN = re.compile(rb'"token"\s{0,8}:\s{0,8}"([\x20-!#-\[\]-~]{1,200})"')
_decode_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


def bad(problem: str) -> ActionError:
    """Return the error for an invalid message."""
    return ActionError(ErrorCode.BAD_REQUEST, problem)


def head(data: bytes) -> Head:
    """Return the common part of a message; raises ActionError if it is not a JSON object."""
    *_, found = _steps(data)
    assert found is not None
    return found


async def head_of(data: bytes) -> Head:
    """Return the head as :func:`head` does; the loop turns before each look at a long message."""
    found: Head | None = None
    for step in _steps(data):
        found = step
        await breathe(data)
    assert found is not None
    return found


def _steps(data: bytes) -> Iterator[Head | None]:
    """Look at a message in steps, each of which takes many ms if it is long; yield the head last.

    Raises ActionError.
    """
    yield None
    if not data:
        raise bad("the message is empty")
    for is_too_much in (_is_dense, _lists_values):
        if is_too_much(data):
            problem = "too many objects, values or escapes for one message"
            raise ActionError(ErrorCode.TOO_LARGE, problem)
        yield None
    yield _head(data)


def _head(data: bytes) -> Head:
    raw = decode(data, MessageHead)
    return Head(_string(raw.action, "action"), _echo(raw.id), _string(raw.token, "token"))


async def breathe(data: bytes) -> None:
    """Let the loop turn between two looks at a long message, each of which takes many ms."""
    if len(data) > _LONG_BYTES:
        await asyncio.sleep(0)


def echo(data: bytes) -> Head:
    """Return the valid parts of the head, for an error response; never raises."""
    found = Head()
    if _is_dense(data) or _lists_values(data):
        return found
    with suppress(ActionError):
        raw = decode(data, MessageHead)
        found = Head(_string(raw.action, "action"))
        found = Head(found.action, _echo(raw.id))
        found = Head(found.action, found.id, _string(raw.token, "token"))
    return found


def tokens_in(data: bytes) -> Iterator[str]:
    """Yield what may be the token of a message, without decoding it; a few at most."""
    at = 0
    for _ in range(_MAX_TOKENS):
        at = data.find(b'"token"', at)
        if at < 0:
            return
        found = _TOKEN.match(data, at)
        if found is not None:
            yield found[1].decode()
        at += 1


class _Object(msgspec.Struct, gc=False):
    """Any object, of which nothing is decoded."""


class _Lists(msgspec.Struct):
    logs: list[_Object] = []
    notifications: list[_Object] = []


def _is_dense(data: bytes) -> bool:
    if len(data) <= _LONG_BYTES:
        return False
    escapes = data.count(b"\\")
    if escapes <= _MAX_ESCAPES < 3 * escapes:
        escapes += 2 * data.count(b"\\u")
    return escapes > _MAX_ESCAPES or data.count(b"}") * _BYTES_AN_OBJECT > len(data)


def _lists_values(data: bytes) -> bool:
    """Return whether a long message lists anything but objects; it stops at the first such item."""
    if len(data) <= _LONG_BYTES or data.count(b",") * _BYTES_A_COMMA <= len(data):
        return False
    try:
        msgspec.json.decode(data, type=_Lists)
    except msgspec.ValidationError:
        return True
    except DECODING_ERRORS:
        # The answer names it.
        return False
    return False


def _string(raw: Raw, key: str) -> str | None:
    if not bytes(raw):
        return None
    try:
        text = _decode_string(raw)
    except DECODING_ERRORS as error:
        raise bad(f"{key}: {decoding_problem(error)}") from None
    if len(text) > MAX_TEXT:
        raise bad(f"{key}: longer than {MAX_TEXT} characters")
    return text


def _echo(raw: Raw) -> bytes:
    text = bytes(raw)
    if text[:1] in (b"{", b"[") or len(text) > _MAX_ID_BYTES:
        problem = f"id: expected a string, number, boolean or null of at most {_MAX_ID_BYTES} bytes"
        raise bad(problem)
    if text[:1] == b'"':
        # The response must be valid JSON, and an undecoded string may contain anything.
        return _encode(_string(raw, "id"))
    return text


def decode(data: bytes, type_: type[T]) -> T:
    """Decode a message; raises ActionError if it does not fit the type."""
    try:
        return msgspec.json.decode(data, type=type_)
    except DECODING_ERRORS as error:
        raise bad(decoding_problem(error, type_)) from None
