"""What a message from the topic is: a result to count, or something to keep as rejected. Pure.

A message of a producer that says nothing of CloudEvents is taken for what it contains.
Fields that this program does not know are ignored, optional ones may be missing; a change
that needs more than that has a type of its own, which is rejected rather than misread.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from monitor.aggregation.result_columns import row_of
from monitor.messages import RESULT_TYPE, Result, decode_result

__all__ = ["FUTURE_LIMIT_S", "judge", "printable"]

FUTURE_LIMIT_S = 86400
"""A result scheduled further ahead than this comes from a broken clock."""


def judge(value: bytes, headers: Mapping[str, str], *, now: float, keep_s: float) -> Result | str:
    """Return the result in ``value``, or why it is rejected: a stable word and details.

    ``now`` is in s since the epoch; a result scheduled more than ``keep_s`` before it can't be
    told from a duplicate any more.
    """
    kind = headers.get("ce_type", RESULT_TYPE)
    if kind != RESULT_TYPE:
        return printable(f"unknown-type: {kind}")
    version = headers.get("ce_specversion", "1.0")
    if not version.startswith("1."):
        return printable(f"unknown-version: CloudEvents {version}")
    try:
        result = decode_result(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return printable(f"not-a-result: {error}")
    if b"\\u" in value and not _storable(result):
        return "bad-text: NUL or half a surrogate pair"
    if result.scheduled_at < now - keep_s:
        return f"too-old: scheduled at {result.scheduled_at:.3f}"
    if result.scheduled_at > now + FUTURE_LIMIT_S:
        return f"in-future: scheduled at {result.scheduled_at:.3f}"
    return result


def printable(reason: str) -> str:
    """Return ``reason`` as any database stores and any terminal shows it, in 500 characters."""
    return "".join(c if c.isprintable() else "?" for c in reason[:500])


def _storable(result: Result) -> bool:
    texts = [value for value in row_of(result) if isinstance(value, str)]
    if any("\0" in text for text in texts):
        return False
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True
