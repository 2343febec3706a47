"""The responses of the log actions, as JSON messages. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Raw

from monitor.errors import MonitorError
from monitor.logs.entries import Entry, Rejected
from monitor.logs.filters import Cursor, Kind
from monitor.store.cursor import cursor_of

__all__ = ["ActionError", "ErrorCode", "Head", "listed", "live", "stored", "succeeded"]

_encode = msgspec.json.Encoder().encode


class ErrorCode(StrEnum):
    """The kind of an error, for programs; the message next to it is for people."""

    BAD_REQUEST = "bad-request"
    UNKNOWN_ACTION = "unknown-action"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too-large"
    RATE_LIMITED = "rate-limited"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Head:
    """The common part of a message: action, ``id`` of the client (JSON, to be echoed), token."""

    action: str | None = None
    id: bytes = b""
    token: str | None = None


class ActionError(MonitorError):
    """An action that failed; ``retry_after`` (s) if a retry may help."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retry_after: float | None = None,
        rejected: Sequence[Rejected] | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.rejected = rejected

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def answer(self, head: Head) -> bytes:
        """Return the response to the client."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.retry_after is not None:
            # Rounded up, so that a client that waits so long is not too early.
            error["retry_after"] = max(math.ceil(self.retry_after * 1000), 1) / 1000
        answer = _begin(head, "error") | {"error": error}
        if self.rejected is not None:
            answer |= {"accepted": 0, "rejected": self.rejected}
        return _encode(answer)


def _begin(head: Head, status: str) -> dict[str, Any]:
    action = head.action if head.action is None else head.action[:64]
    answer: dict[str, Any] = {"action": action, "status": status}
    if head.id:
        answer["id"] = Raw(head.id)
    return answer


def stored(head: Head, accepted: int, rejected: Sequence[Rejected]) -> bytes:
    """Return the response to a committed upload."""
    return _encode(_begin(head, "ok") | {"accepted": accepted, "rejected": rejected})


def listed(head: Head, kind: Kind, entries: Sequence[Entry], cursor: Cursor | None) -> bytes:
    """Return a page; without ``cursor`` it is the last one."""
    answer = _begin(head, "ok")
    answer[kind] = entries
    answer["cursor"] = None if cursor is None else cursor_of(*cursor)
    return _encode(answer)


def succeeded(head: Head) -> bytes:
    """Return the response to an action without a result."""
    return _encode(_begin(head, "ok"))


def live(entries: Sequence[Entry]) -> tuple[bytes, bytes]:
    """Return a live message in two parts: before and after the number of dropped entries."""
    return b'{"action":"log","logs":' + _encode(entries) + b',"dropped":', b"}"
