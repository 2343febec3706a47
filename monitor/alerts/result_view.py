"""The fields of a result that rules look at, decoded from its message."""

from __future__ import annotations

import msgspec

from monitor.messages import RESULT_TYPE

__all__ = ["RESULT_TYPE", "ResultView", "read_result"]

# A result scheduled further ahead (s) than this was made with a wrong clock.
_FUTURE_LIMIT_S = 86400.0


class ResultView(msgspec.Struct, frozen=True, gc=False):
    """A part of a result; see :class:`monitor.messages.Result`."""

    job_id: int
    scheduled_at: float
    checked_at: float
    up: bool
    url: str = ""
    error: str | None = None
    certificate_expires_at: float | None = None
    degraded: bool | None = None
    location: str | None = None
    quorum: int | None = None


_decode = msgspec.json.Decoder(ResultView).decode


def read_result(value: bytes, kind: str, *, now: float) -> ResultView | None:
    """Return the result in a message of this CloudEvents type, or None if it is not one.

    The aggregation stores what is not a result, with the reason.
    """
    if kind != RESULT_TYPE:
        return None
    try:
        found = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if found.scheduled_at <= now + _FUTURE_LIMIT_S else None
