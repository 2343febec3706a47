"""Close codes: what each means to a client, and whether the client should reconnect; no I/O.

The codes are those of RFC 6455, section 7.4.1, and of the IANA registry that it established;
docs/reference/close-codes.md shows this table, and the clients here follow it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = [
    "CLOSE_CODES",
    "GOING_AWAY",
    "LOST",
    "NORMAL",
    "POLICY",
    "TOO_LONG",
    "TRY_AGAIN_LATER",
    "UNSUPPORTED",
    "CloseCode",
    "ComeBack",
    "close_code",
]

NORMAL = 1000
GOING_AWAY = 1001
UNSUPPORTED = 1003
# Never sent: what a client reports if a connection ended without a close.
LOST = 1006
POLICY = 1008
TOO_LONG = 1009
TRY_AGAIN_LATER = 1013


class ComeBack(enum.Enum):
    """What a client should do after a close."""

    AT_ONCE = "at once"
    LATER = "later, spread out"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class CloseCode:
    """One row: a client waits a random time within ``delay_s`` before it reconnects."""

    code: int
    meaning: str
    come_back: ComeBack
    delay_s: tuple[float, float] = (0.0, 0.0)


_AT_ONCE_S = (0.0, 1.0)
_RESTART_S = (0.5, 5.0)
_LATER_S = (5.0, 30.0)

_ROWS = (
    CloseCode(NORMAL, "the channel ended and everything was sent", ComeBack.NEVER),
    CloseCode(GOING_AWAY, "the relay stops or restarts", ComeBack.LATER, _RESTART_S),
    CloseCode(1002, "what the client sent is not valid WebSocket", ComeBack.NEVER),
    CloseCode(UNSUPPORTED, "binary data instead of text", ComeBack.NEVER),
    CloseCode(1005, "closed without a code, by a proxy in between", ComeBack.AT_ONCE, _AT_ONCE_S),
    CloseCode(LOST, "the connection was lost", ComeBack.AT_ONCE, _AT_ONCE_S),
    CloseCode(1007, "text that is not UTF-8", ComeBack.NEVER),
    CloseCode(POLICY, "no channel named in time, an empty name, or a flood", ComeBack.NEVER),
    CloseCode(TOO_LONG, "the client's message is too long", ComeBack.NEVER),
    CloseCode(1011, "an internal error of the relay", ComeBack.LATER, _LATER_S),
    CloseCode(1012, "a proxy in between restarts", ComeBack.LATER, _RESTART_S),
    CloseCode(TRY_AGAIN_LATER, "the client is too slow, or one too many", ComeBack.LATER, _LATER_S),
)
CLOSE_CODES = {row.code: row for row in _ROWS}


def close_code(code: int) -> CloseCode:
    """Return the row of ``code``; a code that is not in the table means to reconnect later."""
    known = CLOSE_CODES.get(code)
    return known or CloseCode(code, "not a code of this relay", ComeBack.LATER, _LATER_S)
